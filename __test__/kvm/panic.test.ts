import { readdirSync } from 'node:fs';
import { path, fixture } from '../helpers/child.ts';
import { x86 as test } from '../helpers/needs.ts';

/** The addon with the hooks, which `node scripts/ensure.mjs hooks` builds. */
function hooks(): string {
  const folder = path('target/hooks');
  const name = readdirSync(folder).find(file => file.endsWith('.node') && file.includes(`.linux-${process.arch}-`));
  return `${folder}/${name}`;
}

test('a panic in the core arrives as ERR_INTERNAL, from a call and from a vCPU, and Node lives on', async t => {
  const { code, stdout, stderr } = await fixture('panic', { env: { TYPEVISOR_NATIVE_PATH: hooks() } });
  t.is(code, 0, stderr);
  const lines: unknown[] = stdout
    .trim()
    .split('\n')
    .map(line => JSON.parse(line));
  t.deepEqual(lines, [
    ['call', 'ERR_INTERNAL', true],
    ['run', 'ERR_INTERNAL', true],
    ['run, again', 'ERR_POISONED', false],
    ['runSync', 'ERR_INTERNAL', true],
    ['runSync, again', 'ERR_POISONED', false],
    ['lives on', 0],
  ]);
});
