// What became of a machine, told from its status lines, its console and how the emulator ended: pure functions.

/** Status lines to `{ has, started, end, failed }`. */
export function parseStatus(text) {
  const of = name => new RegExp(`^${name} (.*)$`, 'm').exec(text)?.[1];
  const end = /^(\d+) ([\d.]+)$/.exec(of('end') ?? '');
  return {
    has: of('has'),
    started: number(of('start')),
    end: end ? { status: Number(end[1]), at: Number(end[2]) } : undefined,
    failed: of('failed'),
  };
}

function number(text) {
  return text === undefined ? undefined : Number(text);
}

/** `default 231=1 … software-protected 233=8 …` to `{ default: Map(number, value), 'software-protected': Map }`. */
export function parseHas(text) {
  const types = {};
  let current;
  for (const word of text.split(' ').filter(Boolean)) {
    const pair = /^(\d+)=(-?\d+)$/.exec(word);
    if (pair) current?.set(Number(pair[1]), Number(pair[2]));
    else types[word] = current = new Map();
  }
  return types;
}

/** The part of a console that says why the kernel died: from the oops or panic on; undefined where there is none. */
export function panicText(console) {
  const lines = console.split(/\r?\n/);
  const first = lines.findIndex(line =>
    /Oops[:\s]|BUG: |Internal error: |\[#1\]|Kernel panic - not syncing/.test(line),
  );
  if (!lines.some(line => line.includes('Kernel panic - not syncing'))) return undefined;
  return lines
    .slice(first, first + 60)
    .join('\n')
    .trimEnd();
}

/** The last lines of a console. */
export function lastLines(console, count = 20) {
  return console.trimEnd().split(/\r?\n/).slice(-count).join('\n');
}

/** Exit codes of `npm run lab` besides the command's own. */
export const TIMED_OUT = 124;
export const LAB_FAILED = 125;

/**
 * How it ended: `{ code, problem, detail, died }`. `code` is the command's where it ran to its end; `problem` says in
 * a line what went wrong with the machine, `detail` shows the console, `died` tells a kernel's panic, and a death under the
 * command, from other ends. `stopped` is 'boot' or 'command' where a limit was passed, `emulatorError` what QEMU had to say.
 */
export function verdict({ status, console, stopped, limitS, emulatorError }) {
  const { end, failed, started } = parseStatus(status);
  if (end) return { code: end.status };
  if (failed) return { code: LAB_FAILED, problem: failed };
  const panic = panicText(console);
  if (panic) return { code: LAB_FAILED, problem: 'the kernel panicked', detail: panic, died: true };
  if (stopped === 'command')
    return {
      code: TIMED_OUT,
      problem: `the time was up (${limitS} s), and the machine was stopped`,
      detail: lastLines(console),
    };
  if (stopped === 'boot')
    return { code: LAB_FAILED, problem: `the machine did not boot in ${limitS} s`, detail: lastLines(console) };
  const where = started === undefined ? 'while it booted' : 'while the command ran';
  const detail = [emulatorError, lastLines(console)].filter(Boolean).join('\n');
  return { code: LAB_FAILED, problem: `the machine died ${where}`, detail, died: started !== undefined };
}
