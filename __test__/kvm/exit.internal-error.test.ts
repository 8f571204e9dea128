import { KiB, Vm } from '../../ts/index.ts';
import { x86 as test } from '../helpers/needs.ts';

/** pmaddwd mm0, cs:[0] */
const UNKNOWN = Uint8Array.of(0x2e, 0x0f, 0xf5, 0x06, 0x00, 0x00);

test('exit: an instruction that KVM cannot emulate is named, with its bytes where the kernel gives them', async t => {
  using vm = Vm.create();
  vm.memory.map({ gpa: 0xffff_f000, size: 4 * KiB });
  vm.memory.write(0xffff_fff0, UNKNOWN); // at the reset vector, whose segment has no memory at its offset 0
  const exit = await vm.createVcpu().run();
  t.like(exit, { kind: 'internal-error', suberror: 1, name: 'emulation' });
  if (exit.kind !== 'internal-error') return;
  t.is(exit.flags, exit.data[0]); // both absent before Linux 5.14
  const given = exit.instruction?.subarray(0, UNKNOWN.length);
  t.deepEqual(given, ((exit.flags ?? 0n) & 1n) === 1n ? UNKNOWN : undefined);
});
