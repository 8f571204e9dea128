// What scripts tell the person: progress on stderr, one way to stop with a reason.

/** A failure whose message is all that the person needs; no stack is shown. */
export class Stop extends Error {
  constructor(message, exitCode = 1) {
    super(message);
    this.exitCode = exitCode;
  }
}

export function say(line) {
  process.stderr.write(`${line}\n`);
}

/** Prints the opening comment of a script for `--help`: the lines after the `#!`, up to the first that is no comment. */
export function helpOf(source) {
  const lines = source.split('\n').filter(line => !line.startsWith('#!'));
  const end = lines.findIndex(line => !line.startsWith('//'));
  return lines
    .slice(0, end)
    .map(line => line.replace(/^\/\/ ?/, ''))
    .join('\n');
}

/** Runs a script's main function: `--help` (before any `--`) prints its opening comment, a `Stop` one line. */
export async function main(moduleUrl, body) {
  const { readFileSync } = await import('node:fs');
  const args = process.argv.slice(2);
  const own = args.includes('--') ? args.slice(0, args.indexOf('--')) : args;
  if (own.includes('--help') || own.includes('-h')) {
    console.log(helpOf(readFileSync(new URL(moduleUrl), 'utf8')));
    return;
  }
  try {
    process.exitCode = (await body(args)) ?? 0;
  } catch (error) {
    if (!(error instanceof Stop)) throw error;
    say(error.message);
    process.exitCode = error.exitCode;
  }
}
