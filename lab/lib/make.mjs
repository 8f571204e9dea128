// `make` for the kernel's source: its output goes to a log, line by line, and the log's end is what a failure shows.
import { closeSync, openSync, writeSync } from 'node:fs';
import { shown } from '../../scripts/lib/paths.mjs';
import { run } from '../../scripts/lib/run.mjs';
import { Stop } from '../../scripts/lib/say.mjs';
import { lastLinesOf } from './source.mjs';

/** Runs make, politely; `what` names the product, `seen(line)` follows it. Where it fails: a `Stop` with what it said last. */
export async function runMake(what, args, log, seen = () => {}) {
  const file = openSync(log, 'a');
  const onLine = line => {
    writeSync(file, `${line}\n`);
    seen(line);
  };
  try {
    const { status } = await run('nice', ['make', ...args], { onLine });
    if (status !== 0) throw new Stop(`lab: ${what} could not be built (${shown(log)}):\n${lastLinesOf(log)}`);
  } finally {
    closeSync(file);
  }
}
