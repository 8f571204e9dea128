// What became of one of the kernel's selftests, and what it had to say about it: pure functions.

/** What a test can come to, the best first. 'crash' is a signal that ended it, or a machine that died under it. */
export const VERDICTS = ['pass', 'skip', 'fail', 'timeout', 'crash', 'left out'];

/** KSFT_SKIP of tools/testing/selftests/kselftest.h. */
const SKIP = 4;

/** How a process ended, as `run` of scripts/lib/run.mjs gives it, to a verdict. */
export function verdictOf({ status, signal, timedOut }) {
  if (timedOut) return 'timeout';
  if (signal) return 'crash';
  if (status === 0) return 'pass';
  return status === SKIP ? 'skip' : 'fail';
}

/** The line of a test's output that says most about its verdict; empty where it said nothing. */
export function lastWords(lines, verdict) {
  const spoken = lines.map(line => line.trim()).filter(line => line !== '' && !line.startsWith('Random seed:'));
  if (verdict === 'skip') {
    const reason = spoken.map(line => /# SKIP(?: -)?\s*(.+)$/.exec(line)?.[1] ?? /^# ?SKIP:? (.+)$/.exec(line)?.[1]);
    const given = reason.findLast(Boolean);
    if (given) return shortened(given);
  }
  if (verdict === 'fail') {
    const assertion = assertionOf(spoken) ?? spoken.findLast(line => /^not ok\b/.test(line));
    if (assertion) return shortened(assertion);
  }
  return shortened(spoken.at(-1) ?? '');
}

/**
 * KVM's selftests print "==== Test Assertion Failure ====", then where and what, `pid=…`, a trace of numbered frames
 * and, where there is one, a message.
 */
function assertionOf(lines) {
  const at = lines.findLastIndex(line => /Test Assertion Failure/.test(line));
  if (at < 0) return undefined;
  const [where = '', ...rest] = lines.slice(at + 1);
  const message = rest.find(line => !/^(pid=|\d+\s+0x|\(stack trace|[0-9a-f]+ )/.test(line));
  return message ? `${where}: ${message}` : where;
}

function shortened(line) {
  return line.length > 200 ? `${line.slice(0, 197)}...` : line;
}
