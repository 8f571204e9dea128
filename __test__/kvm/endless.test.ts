import { fixture } from '../helpers/child.ts';
import { onKvm as test } from '../helpers/needs.ts';

/** How the endless guest is stopped, and what the program then sees. */
const WAYS: readonly (readonly [string, string])[] = [
  ['kick', "{ kind: 'intr' }"],
  ['close', 'ERR_CLOSED'],
  ['dispose', 'ERR_CLOSED'],
  ['dispose of the vCPU', 'ERR_CLOSED'],
  ['dispose under serve', 'ERR_CLOSED'],
  ['limit', 'ERR_TIMEOUT'],
  ['abort', 'TimeoutError: The operation was aborted due to timeout'],
];

for (const [way, printed] of WAYS) {
  test(`jmp $: is stopped by ${way}, and Node ends by itself`, async t => {
    const { code, stdout, stderr } = await fixture('endless', { args: [way] });
    t.deepEqual([code, stdout, stderr], [0, `${printed}\n`, '']);
  });
}

test('jmp $: process.exit() ends the process under it', async t => {
  t.is((await fixture('endless', { args: ['exit'] })).code, 0);
});

test('jmp $: an uncaught exception ends the process under it', async t => {
  const { code, signal, stderr } = await fixture('endless', { args: ['throw'] });
  t.deepEqual([code, signal], [1, null]);
  t.regex(stderr, /uncaught, while the guest runs/u);
});
