import { KiB, Vm } from '../../ts/index.ts';
import { ENTRY, hypervisorCall, machine, SPIN, words } from '../helpers/guests.ts';
import { needs } from '../helpers/needs.ts';
import { throwsCode } from '../helpers/throws.ts';

const test = needs('aarch64');

test('vcpu.boot: el1 starts with MMU and caches on, at EL1, with its stack', async t => {
  using guest = machine(hypervisorCall(0x8400_0008));
  const made = guest.vcpu.boot({ mode: 'el1', entry: ENTRY, stack: 0x8000 });
  const registers = guest.vcpu.getRegisters();
  if (registers.arch !== 'aarch64') throw new Error('registers of another processor');
  const [M, C, I] = [1n << 0n, 1n << 2n, 1n << 12n];
  t.is(registers.sctlrEl1 & (M | C | I), M | C | I);
  t.is(registers.pstate & 0xfn, 5n, 'EL1h');
  t.deepEqual([registers.pc, registers.spEl1], [BigInt(ENTRY), 0x8000n]);
  const slot = guest.vm.memory.slotAt(made.tables?.gpa ?? 0);
  t.deepEqual({ gpa: slot?.gpa, size: slot?.size }, { ...made.tables });
  t.like(await guest.vcpu.run(), { kind: 'system-event', event: 'shutdown' });
});

test('vcpu.boot: exclusive accesses work at el1, which need memory that caches', async t => {
  // QEMU models no caches: only hardware can fail for memory that is not cacheable.
  // mov x1, 0x2000; again: ldxr w0, [x1]; add w0, w0, 1; stxr w2, w0, [x1]; cbnz w2, again
  const increment = words(0xd284_0001, 0x885f_7c20, 0x1100_0400, 0x8802_7c20, 0x35ff_ffa2);
  using guest = machine(increment, hypervisorCall(0x8400_0008));
  guest.vm.memory.setUint32(0x2000, 41);
  guest.vcpu.boot({ mode: 'el1', entry: ENTRY });
  t.like(await guest.vcpu.run(), { kind: 'system-event', event: 'shutdown' });
  t.is(guest.vm.memory.getUint32(0x2000), 42);
});

test('vcpu.boot: an exception without vectors of the guest is an mmio exit, not a silent loop', async t => {
  using guest = machine(words(0x0000_0000)); // udf 0
  const { exceptions } = guest.vcpu.boot({ mode: 'el1', entry: ENTRY });
  const exit = await guest.vcpu.run();
  // Vector 4: synchronous, of EL1 itself; exception class 0: unknown reason (Arm ARM, ESR_EL1).
  t.like(exit, { kind: 'mmio', direction: 'write', gpa: (exceptions?.gpa ?? 0) + 8 * 4, size: 8 });
  const data = exit.kind === 'mmio' && exit.direction === 'write' ? exit.data : new Uint8Array(8);
  t.is(new DataView(data.buffer, data.byteOffset).getBigUint64(0, true) >> 26n, 0n);
  const registers = guest.vcpu.getRegisters();
  t.is(registers.arch === 'aarch64' ? registers.elrEl1 : -1n, BigInt(ENTRY));
});

test('vcpu.boot: at el1 addresses without a slot are devices', async t => {
  // mov x1, 0x90000; ldr x0, [x1]
  using guest = machine(words(0xd2a0_0121, 0xf940_0020), SPIN);
  guest.vcpu.boot({ mode: 'el1', entry: ENTRY });
  t.deepEqual(await guest.vcpu.run(), { kind: 'mmio', direction: 'read', gpa: 0x9_0000, size: 8 });
});

test('vcpu.boot: modes of x86_64, user privilege and a crooked entry are refused, and nothing is mapped', t => {
  using vm = Vm.create();
  vm.memory.map({ gpa: 0, size: 64 * KiB });
  const vcpu = vm.createVcpu();
  for (const mode of ['real', 'protected', 'long'] as const)
    throwsCode(t, 'ERR_INVALID_ARGUMENT', () => vcpu.boot({ mode, entry: ENTRY }));
  throwsCode(t, 'ERR_INVALID_ARGUMENT', () => vcpu.boot({ mode: 'el1', privilege: 'user', entry: ENTRY }));
  throwsCode(t, 'ERR_UNALIGNED', () => vcpu.boot({ mode: 'el1', entry: ENTRY + 2 }));
  t.is(vm.memory.slots.length, 1);
});

needs('x86_64')('vcpu.boot: el1 is not for x86_64', t => {
  using guest = machine(SPIN);
  throwsCode(t, 'ERR_INVALID_ARGUMENT', () => guest.vcpu.boot({ mode: 'el1', entry: ENTRY }));
});
