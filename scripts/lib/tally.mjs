// Test runners' output to counts: pure functions over lines, for cargo (libtest, libtest-mimic) and TAP (ava, node:test).

/**
 * `{ passed, failed, failures: [title], skips: [{ title, reason }], finished }`: `finished` says that the runner lived to
 * give its result.
 */
export function emptyTally() {
  return { passed: 0, failed: 0, failures: [], skips: [], finished: false };
}

/** What cargo printed. Each test binary must give as many results as there are `running N tests` lines. */
export function tallyCargo(lines) {
  const tally = emptyTally();
  let running = 0;
  for (const raw of lines) {
    const line = withoutColour(raw);
    const result = /^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored/.exec(line);
    // libtest-mimic has no place for a reason but the kind: `test [needs x86_64] title ... ignored`.
    const ignored = /^test (?:\[(.+?)\])?(.+?)\s+\.\.\. ignored(?:, (.*)| \((.*)\))?$/.exec(line);
    const failed = /^test (.+?)\s+\.\.\. FAILED\b/.exec(line);
    if (/^running \d+ tests?$/.test(line)) running += 1;
    if (failed) tally.failures.push(failed[1].trim());
    if (ignored) tally.skips.push(ignoredTest(ignored));
    if (!result) continue;
    running -= 1;
    tally.passed += Number(result[1]);
    tally.failed += Number(result[2]);
    tally.finished = true;
  }
  if (running !== 0) tally.finished = false;
  return tally;
}

function ignoredTest([, kind, title, reason, other]) {
  return { title: title.trim(), reason: reason ?? other ?? kind ?? 'no reason given' };
}

/** What a TAP producer printed: its top-level points. The plan (`1..N`) must come and be kept. */
export function tallyTap(lines) {
  const tally = emptyTally();
  let plan;
  let points = 0;
  for (const line of lines) {
    const planned = /^1\.\.(\d+)/.exec(line);
    if (planned) plan = Number(planned[1]);
    const point = tapPoint(line);
    if (!point) continue;
    points += 1;
    if (point.skip !== undefined) tally.skips.push({ title: point.title, reason: point.skip });
    else if (point.ok) tally.passed += 1;
    else {
      tally.failed += 1;
      tally.failures.push(point.title);
    }
  }
  tally.finished = plan === points;
  return tally;
}

/** What `npm run test:broken` printed: a line a verdict, and a closing line that counts them. */
export function tallyVerdicts(lines) {
  const tally = emptyTally();
  for (const line of lines) {
    const skip = /^skip (.*?) \((.*)\)$/.exec(line);
    if (line.startsWith('  ok ')) tally.passed += 1;
    else if (line.startsWith('FAIL ')) tally.failures.push(line.slice('FAIL '.length));
    else if (skip) tally.skips.push({ title: skip[1], reason: skip[2] });
  }
  tally.failed = tally.failures.length;
  tally.finished = lines.at(-1) === closingLine(sum([tally]));
  return tally;
}

/** One top-level TAP point: `{ ok, title, skip }`, `skip` being the reason; undefined for any other line. */
export function tapPoint(line) {
  const point = /^(not )?ok \d+(?: - )?(.*)$/.exec(line);
  if (!point) return undefined;
  const [, not, text] = point;
  const skip = /^(.*?) # SKIP\b ?(.*)$/i.exec(text);
  if (!skip) return { ok: !not, title: text };
  // ava has no place for a reason but the title: "api: claim (needs memory-attributes)".
  const inTitle = /^(.*) \(([^()]*)\)$/.exec(skip[1]);
  if (skip[2] || !inTitle) return { ok: true, title: skip[1], skip: skip[2] || 'no reason given' };
  return { ok: true, title: inTitle[1], skip: inTitle[2] };
}

/** A filter that turns TAP into a line a test, keeping what a failed one has to say; undefined drops the line. */
export function tapForPeople() {
  let failed = false;
  return line => {
    const point = tapPoint(line);
    if (point) {
      failed = !point.ok;
      if (point.skip !== undefined) return `skip ${point.title} (${point.skip})`;
      return `${point.ok ? '  ok' : 'FAIL'} ${point.title}`;
    }
    if (
      /^(TAP version|1\.\.\d|# Subtest|# (tests|suites|pass|fail|cancelled|skip|skipped|todo|duration_ms) )/.test(line)
    )
      return undefined;
    return line === '' || (/^\s/.test(line) && !failed) ? undefined : line;
  };
}

/**
 * Closes the books on one runner: one that died, or failed without naming a failed test, is a failure itself.
 * `end` is what `run` gave.
 */
export function settle(tally, { status, signal, timedOut }) {
  const problem = problemOf(tally, { status, signal, timedOut });
  return problem === undefined ? tally : { ...tally, failed: tally.failed + 1, problem };
}

function problemOf(tally, { status, signal, timedOut }) {
  if (timedOut) return 'ran out of time';
  if (signal) return `ended by ${signal}`;
  if (status === null) return 'could not be started';
  if (!tally.finished) return `gave no result (exit code ${status})`;
  if (status !== 0 && tally.failed === 0) return `exit code ${status} with no failed test`;
  return undefined;
}

/** The sum of several tallies. */
export function sum(tallies) {
  const total = { passed: 0, failed: 0, skipped: 0 };
  for (const { passed, failed, skips } of tallies) {
    total.passed += passed;
    total.failed += failed;
    total.skipped += skips.length;
  }
  return total;
}

/** The closing line of `npm test`. */
export function closingLine({ passed, failed, skipped }) {
  return `${passed} passed, ${failed} failed, ${skipped} skipped`;
}

function withoutColour(line) {
  // eslint-disable-next-line no-control-regex
  return line.replaceAll(/\u001b\[[0-9;]*m/g, '');
}
