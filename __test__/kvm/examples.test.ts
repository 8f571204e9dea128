import { existsSync } from 'node:fs';
import { path, program } from '../helpers/child.ts';
import { exampleModule, examples } from '../helpers/examples.ts';
import { needs } from '../helpers/needs.ts';

const test = needs('x86_64', 'readonly-mem', 'user-memory2');

test('@example: each runs', async t => {
  using generated = exampleModule();
  const { code, stdout, stderr } = await program(generated.file);
  t.is(code, 0, `${stdout}\n${stderr}`);
  for (const { where } of examples()) t.true(stdout.includes(`${where}\n`), where);
});

test('examples/hello.ts: runs as a newcomer copies it', async t => {
  t.true(existsSync(path('dist/index.js')), 'dist/ is not built: run npm run build:ts, or npm test, which does');
  const { code, stdout, stderr } = await program(path('examples/hello.ts'));
  t.deepEqual([code, stderr], [0, '']);
  t.is(stdout, "out 0x3f8: 'H'\nout 0x3f8: 'i'\nhlt\n");
});
