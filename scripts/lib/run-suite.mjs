// One suite of `npm test` or `npm run test:full`: run, shown as it goes, counted.
import { run } from './run.mjs';
import { settle } from './tally.mjs';

/** Runs `{ name, command, args, env, tally, show }`, showing its output as it comes; gives its tally. */
export async function runSuite({ name, command, args, env, tally, show }, timeoutMs) {
  console.log(`\n── ${name}`);
  const lines = [];
  const onLine = (line, stream) => {
    if (stream === 'stdout') lines.push(line);
    const shown = stream === 'stdout' ? show(line) : line;
    if (shown !== undefined) console.log(shown);
  };
  const end = await run(command, args, { env, onLine, timeoutMs });
  return settle(tally(lines), end);
}
