import { spawnSync } from 'node:child_process';
import test from 'ava';
import { path } from '../helpers/child.ts';
import { exampleModule, examples } from '../helpers/examples.ts';

test('@example: there are some, and no comment breaks one off', t => {
  const all = examples();
  t.true(all.length >= 12);
  for (const { where, code } of all) t.regex(code, /;\n(?:\}\n)?$|\/\/.*\n$|\}\n$/u, where);
});

test('@example: each compiles under the strict settings', t => {
  using generated = exampleModule();
  const compiler = path('node_modules/typescript/bin/tsc');
  const { status, stdout } = spawnSync(process.execPath, [compiler, '-p', generated.folder], { encoding: 'utf8' });
  t.is(status, 0, stdout);
});
