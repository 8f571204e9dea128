import { type CapabilityName, KiB, Kvm, Vm, type VcpuFeature } from '../../ts/index.ts';
import { type Code, CONSOLE, ENTRY, hypervisorCall, put, set, start, told, words } from '../helpers/guests.ts';
import { needs } from '../helpers/needs.ts';
import { patiently } from '../helpers/scale.ts';
import { throwsCode, wrong } from '../helpers/throws.ts';

const test = needs('aarch64');

/** A VM with the code, and no vCPU yet. */
function withCode(...pieces: readonly Code[]): Vm {
  const vm = Vm.create();
  vm.memory.map({ gpa: 0, size: 64 * KiB });
  vm.memory.write(ENTRY, Uint8Array.from(pieces.flat()));
  return vm;
}

test('vm.createVcpu: without the feature psci-0.2 a PSCI call is no exit', async t => {
  // hvc returns -1 (NOT_SUPPORTED), whose low byte the guest tells
  using vm = withCode(hypervisorCall(0x8400_0008), put(CONSOLE));
  const vcpu = vm.createVcpu({ features: [] });
  start(vcpu);
  t.deepEqual(await vcpu.run(), told(CONSOLE, 0xff));
});

for (const way of ['CPU_ON of another vCPU', 'boot'] as const) {
  test(`vm.createVcpu: a vCPU with power-off waits, and ${way} starts it`, async t => {
    using vm = withCode(set(42), put(CONSOLE));
    const caller = ENTRY + 0x1000;
    // movz x1, 1: the second's MPIDR; movz x2, its entry; the call's result
    const call = [...words(0xd280_0021, 0xd280_0002 | (ENTRY << 5)), ...hypervisorCall(0x8400_0003), ...put(CONSOLE)];
    vm.memory.write(caller, Uint8Array.from(call));
    const first = vm.createVcpu();
    first.boot({ mode: 'el1', entry: caller });
    const second = vm.createVcpu({ features: ['psci-0.2', 'power-off'] });
    second.setRegisters({ pc: BigInt(ENTRY) }); // where it would tell, were it not off
    throwsCode(t, 'ERR_TIMEOUT', () => second.runSync({ timeoutMs: patiently(100) }));
    if (way === 'boot') start(second);
    else t.deepEqual(await first.run(), told(CONSOLE, 0));
    t.deepEqual(await second.run(), told(CONSOLE, 42));
  });
}

const OPTIONAL: readonly (readonly [VcpuFeature, ...CapabilityName[]])[] = [
  ['psci-0.2', 'arm-psci-0-2'],
  ['pmu-v3', 'arm-pmu-v3'],
  ['sve', 'arm-sve'],
  ['pointer-auth', 'arm-ptrauth-address', 'arm-ptrauth-generic'],
  ['el1-32bit', 'arm-el1-32bit'],
];

for (const [feature, ...hide] of OPTIONAL) {
  test(`vm.createVcpu: ${feature} is refused where KVM lacks it, and costs no id`, t => {
    using kvm = Kvm.open({ hide });
    using vm = Vm.create({ kvm });
    const error = throwsCode(t, 'ERR_CAPABILITY_MISSING', () => vm.createVcpu({ features: [feature] }));
    t.is(error?.capability, hide[0]);
    t.regex(error?.message ?? '', new RegExp(`'${feature}'`, 'u'));
    t.is(vm.createVcpu({ features: [] }).id, 0);
  });

  needs('aarch64', ...hide)(`vm.createVcpu: ${feature} is had where KVM has it`, t => {
    using vm = Vm.create();
    t.is(vm.createVcpu({ features: [feature] }).id, 0);
  });
}

test('vm.createVcpu: every vCPU of a VM has the features of the first; others are refused, and cost no id', t => {
  using vm = Vm.create();
  vm.createVcpu({ features: [] });
  throwsCode(t, 'ERR_INVALID_ARGUMENT', () => vm.createVcpu({ features: ['psci-0.2'] }));
  t.is(vm.createVcpu({ features: ['power-off'] }).id, 1);
  t.is(vm.createVcpu().id, 2);
});

test('vm.createVcpu: an unknown feature is refused before a vCPU is made', t => {
  using vm = Vm.create();
  throwsCode(t, 'ERR_INVALID_ARGUMENT', () => vm.createVcpu({ features: wrong(['psci-9']) }));
  t.is(vm.createVcpu().id, 0);
});

needs('x86_64')('vm.createVcpu: features are aarch64’s', t => {
  using vm = Vm.create();
  throwsCode(t, 'ERR_INVALID_ARGUMENT', () => vm.createVcpu({ features: ['psci-0.2'] }));
});
