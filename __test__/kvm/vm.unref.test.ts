import { fixture } from '../helpers/child.ts';
import { onKvm as test } from '../helpers/needs.ts';

for (const [how, what] of [
  ['unref', 'a pending run of an unreferenced VM'],
  ['late', 'one that was pending before unref'],
  ['serve', 'a pending serve of an unreferenced VM'],
  ['handler', 'a handler of an unreferenced VM that never ends'],
] as const) {
  test(`vm.unref: Node does not stay alive for ${what}`, async t => {
    const { code, stdout, stderr } = await fixture('unref', { args: [how] });
    t.deepEqual([code, stdout, stderr], [0, '', '']);
  });
}

for (const [how, what] of [
  ['other', "for another VM's run"],
  ['ref', 'after ref'],
  ['default', 'without it'],
  ['served', 'for a serve whose handler takes its time, without it'],
] as const) {
  test(`vm.unref: Node stays alive ${what}`, async t => {
    const { code, stdout, stderr } = await fixture('unref', { args: [how] });
    t.deepEqual([code, stdout, stderr], [0, 'intr\n', '']);
  });
}

test('vm.unref: what ends is the program, and not the run', async t => {
  const { stdout } = await fixture('unref', { args: ['awaited'] });
  t.is(stdout, 'intr\n');
});
