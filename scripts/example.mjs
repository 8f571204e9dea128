#!/usr/bin/env node
// npm run example -- NAME [ARGUMENT…]
//
// Runs examples/NAME.ts on this clone, on any Node.js from 20.19 on: `using` is compiled where Node.js does not know it.
// Without a name it lists them.
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { ROOT } from './lib/paths.mjs';
import { Stop, main } from './lib/say.mjs';

await main(import.meta.url, ([name, ...args]) => {
  const files = readdirSync(join(ROOT, 'examples')).filter(file => file.endsWith('.ts'));
  const names = files.map(file => file.slice(0, -'.ts'.length));
  if (name === undefined) {
    console.log(names.join('\n'));
    return 0;
  }
  if (!names.includes(name)) throw new Stop(`there is no example ${name} (there are: ${names.join(', ')})`, 2);
  const program = [
    `--import=${import.meta.resolve('@oxc-node/core/register')}`,
    join(ROOT, 'examples', `${name}.ts`),
    ...args,
  ];
  return spawnSync(process.execPath, program, { stdio: 'inherit' }).status ?? 1;
});
