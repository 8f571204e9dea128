import { type ErrorCode, type ExitSwitches, KiB, Kvm, type MsrFilterRange, Vm } from '../../ts/index.ts';
import { type Code, ENTRY, type Machine, machineIn, SPIN, STOP, STOPPED } from '../helpers/guests.ts';
import { needs, onKvm } from '../helpers/needs.ts';
import { throwsCode } from '../helpers/throws.ts';
import { rdmsr, wrmsr } from '../helpers/x86.ts';

const msr = needs('x86_64', 'x86-user-space-msr', 'x86-msr-filter');

/** A register that KVM does not know. */
const UNKNOWN = 0x1234_5678;
/** `IA32_SYSENTER_CS`. */
const SYSENTER = 0x174;

/** A machine made with those exits; a #GP ends its guest with `out 0x77, al`. */
function machineWith(exits: ExitSwitches, ...pieces: readonly Code[]): Machine {
  const guest = machineIn(Vm.create({ exits }), ...pieces);
  guest.vm.memory.write(0x1800, Uint8Array.of(0xe6, 0x77));
  guest.vm.memory.write(13 * 4, Uint8Array.of(0, 0x18, 0, 0));
  return guest;
}

const FAULT = { kind: 'io', direction: 'out', port: 0x77 } as const;

msr('vm.create: with exits.msr an unknown register is an exit, and its answer is what the guest reads', async t => {
  using guest = machineWith({ msr: true }, rdmsr(UNKNOWN), wrmsr(UNKNOWN + 1, 7), STOP);
  t.deepEqual(await guest.vcpu.run(), { kind: 'rdmsr', reason: 'unknown', reasonBits: 2, index: UNKNOWN });
  guest.vcpu.answer(0x5n);
  await guest.vcpu.settle();
  t.like(guest.vcpu.getRegisters(), { rax: 5n, rdx: 0n });
  const written = { kind: 'wrmsr', reason: 'unknown', reasonBits: 2, index: UNKNOWN + 1, data: 7n } as const;
  t.deepEqual(await guest.vcpu.run(), written);
  t.deepEqual(await guest.vcpu.run(), STOPPED);
});

for (const [what, code] of [
  ['read', rdmsr(UNKNOWN)],
  ['write', wrmsr(UNKNOWN, 1)],
] as const) {
  msr(`vm.create: with exits.msr a ${what} can be answered by a fault of the guest’s`, async t => {
    using guest = machineWith({ msr: true }, code, STOP);
    t.regex((await guest.vcpu.run()).kind, /^(?:rd|wr)msr$/u);
    guest.vcpu.answer('fault');
    t.like(await guest.vcpu.run(), FAULT);
  });
}

msr('vm.create: without exits.msr, and for other reasons, an unknown register is a fault of the guest’s', async t => {
  for (const exits of [{}, { msr: false }, { msr: { reasons: ['filter'] as const } }]) {
    using guest = machineWith(exits, rdmsr(UNKNOWN), STOP);
    t.like(await guest.vcpu.run(), FAULT);
  }
});

msr('vm.create: exits.msr.filter makes the accesses that it names exits', async t => {
  const filter = [{ base: SYSENTER, count: 1, write: false }];
  using guest = machineWith({ msr: { filter } }, wrmsr(SYSENTER, 8), rdmsr(SYSENTER), STOP);
  t.deepEqual(await guest.vcpu.run(), { kind: 'rdmsr', reason: 'filter', reasonBits: 4, index: SYSENTER });
  guest.vcpu.answer(0);
  t.deepEqual(await guest.vcpu.run(), STOPPED);
});

msr('vm.create: exits.msr.filter allows what it says, and denies others where told', async t => {
  const filter = [{ base: SYSENTER, count: 2, allow: Uint8Array.of(0b01) }];
  const code = [rdmsr(SYSENTER), wrmsr(SYSENTER + 1, 9), rdmsr(0x1b), STOP];
  using guest = machineWith({ msr: { filter, others: 'deny' } }, ...code);
  t.like(await guest.vcpu.run(), { kind: 'wrmsr', reason: 'filter', index: SYSENTER + 1, data: 9n });
  t.like(await guest.vcpu.run(), { kind: 'rdmsr', reason: 'filter', index: 0x1b });
  guest.vcpu.answer(0);
  t.deepEqual(await guest.vcpu.run(), STOPPED);
});

for (const [title, filter, others, message] of [
  ['no range where others are denied', [], 'deny', /at least one range/u],
  ['17 ranges', Array.from({ length: 17 }, (_, base) => ({ base, count: 1 })), 'allow', /at most 16 ranges/u],
  ['a range of nothing', [{ base: 0, count: 0 }], 'allow', /filter\[0\] has registers that cannot be/u],
  ['a range past all', [{ base: 2 ** 32 - 1, count: 1 }], 'allow', /filter\[0\] has registers that cannot be/u],
  ['neither reads nor writes', [{ base: 0, count: 1, read: false, write: false }], 'allow', /about neither/u],
  ['too many bits', [{ base: 0, count: 8, allow: new Uint8Array(2) }], 'allow', /filter\[0\] has a bitmap of/u],
  [
    'what KVM never filters',
    [
      { base: 0, count: 1 },
      { base: 0x800, count: 1 },
    ],
    'allow',
    /filter\[1\] .* x2APIC/u,
  ],
  [
    'two ranges of one access',
    [
      { base: 0, count: 2 },
      { base: 1, count: 2 },
    ],
    'allow',
    /filter\[1\] .* earlier/u,
  ],
] as const satisfies readonly (readonly [string, readonly MsrFilterRange[], 'allow' | 'deny', RegExp])[]) {
  msr(`vm.create: exits.msr.filter of ${title} is ERR_INVALID_ARGUMENT`, t => {
    const error = throwsCode(t, 'ERR_INVALID_ARGUMENT', () => Vm.create({ exits: { msr: { filter, others } } }));
    t.regex(error?.message ?? '', message);
  });
}

needs('x86_64', 'exit-on-emulation-failure')(
  'vm.create: with exits.emulationFailure what cannot be emulated in user mode is an exit with its bytes',
  async t => {
    // mov ebx, 0x90000000; pmaddwd mm0, [rbx], where no memory is
    const code = [0xbb, 0, 0, 0, 0x90, 0x0f, 0xf5, 3];
    using guest = machineWith({ emulationFailure: true }, code);
    guest.vcpu.boot({ mode: 'long', privilege: 'user', entry: ENTRY });
    const exit = await guest.vcpu.run();
    t.like(exit, { kind: 'internal-error', suberror: 1 });
    if (exit.kind === 'internal-error') t.deepEqual(exit.instruction?.slice(0, 3), Uint8Array.of(0x0f, 0xf5, 3));
  },
);

needs('aarch64', 'arm-nisv-to-user')(
  'vm.create: with exits.nisv an access that the processor does not describe is an exit',
  async t => {
    // movz x4, 0x900, lsl 16; ldp x2, x3, [x4]
    const code = [0x04, 0x20, 0xa1, 0xd2, 0x82, 0x0c, 0x40, 0xa9];
    using guest = machineWith({ nisv: true }, code, SPIN);
    t.like(await guest.vcpu.run(), { kind: 'arm-nisv', faultIpa: 0x900_0000 });
    t.is(guest.vcpu.getRegisters().arch, 'aarch64');
  },
);

for (const [capability, exits] of [
  ['x86-user-space-msr', { msr: true }],
  ['x86-msr-filter', { msr: { reasons: [], filter: [{ base: 0, count: 1 }] } }],
  ['exit-hypercall', { hypercalls: ['map-gpa-range'] }],
  ['exit-on-emulation-failure', { emulationFailure: true }],
  ['x86-disable-exits', { disable: ['pause'] }],
  ['x86-bus-lock-exit', { busLock: true }],
  ['x86-notify-vmexit', { notify: { window: 0 } }],
  ['xen-hvm', { xen: { msr: 0x4000_0000 } }],
  ['arm-nisv-to-user', { nisv: true }],
] as const) {
  const code: ErrorCode = 'ERR_CAPABILITY_MISSING';
  onKvm(`vm.create: exits that need ${capability} are ${code} without it, with the first kernel that has it`, t => {
    using kvm = Kvm.open({ hide: [capability] });
    const error = throwsCode(t, code, () => Vm.create({ kvm, exits }));
    t.is(error?.capability, capability);
    t.regex(error?.since ?? '', /^\d+\.\d+( or earlier)?$/u);
    // What was refused has left nothing behind that would be in the way.
    using vm = Vm.create({ kvm });
    vm.memory.map({ gpa: 0, size: 4 * KiB });
    t.is(vm.memory.slots.length, 1);
  });
}
