import { type CapabilityName, Vm, type VcpuFeature } from '../../ts/index.ts';
import { ENTRY, hypervisorCall, machine, SPIN, words } from '../helpers/guests.ts';
import { needs } from '../helpers/needs.ts';
import { throwsCode, wrong } from '../helpers/throws.ts';

const test = needs('aarch64');

test('vm.createVcpu: without the feature psci-0.2 a PSCI call is no exit', t => {
  // hvc returns -1 (NOT_SUPPORTED); str w0, [x1] shows it
  using guest = machine(hypervisorCall(0x8400_0008), words(0xd2a0_0121, 0xb900_0020), SPIN);
  using vm = Vm.create();
  vm.memory.map({ gpa: 0, size: 0x1_0000 });
  vm.memory.write(ENTRY, guest.vm.memory.read(ENTRY, 64));
  const vcpu = vm.createVcpu({ features: [] });
  vcpu.setRegisters({ pc: BigInt(ENTRY) });
  const data = Uint8Array.of(0xff, 0xff, 0xff, 0xff);
  t.deepEqual(vcpu.runSync({ timeoutMs: 10_000 }), { kind: 'mmio', direction: 'write', gpa: 0x9_0000, size: 4, data });
});

test('vm.createVcpu: a vCPU with power-off waits for another to start it', async t => {
  using vm = Vm.create();
  vm.memory.map({ gpa: 0, size: 0x1_0000 });
  vm.memory.write(ENTRY, Uint8Array.from(words(0x1400_0000)));
  const vcpu = vm.createVcpu({ features: ['psci-0.2', 'power-off'] });
  vcpu.setRegisters({ pc: BigInt(ENTRY) });
  throwsCode(t, 'ERR_TIMEOUT', () => vcpu.runSync({ timeoutMs: 100 }));
  const registers = vcpu.getRegisters();
  t.is(registers.arch === 'aarch64' ? registers.pc : -1n, BigInt(ENTRY));
});

const OPTIONAL: readonly (readonly [VcpuFeature, CapabilityName])[] = [
  ['pmu-v3', 'arm-pmu-v3'],
  ['sve', 'arm-sve'],
];

for (const [feature, capability] of OPTIONAL) {
  test(`vm.createVcpu: ${feature} is had or refused as the kernel says`, t => {
    using vm = Vm.create();
    const create = () => vm.createVcpu({ features: ['psci-0.2', feature] });
    if (vm.capabilities.has(capability)) t.is(create().id, 0);
    else t.is(throwsCode(t, 'ERR_CAPABILITY_MISSING', create)?.capability, capability);
  });
}

test('vm.createVcpu: an unknown feature is refused before a vCPU is made', t => {
  using vm = Vm.create();
  throwsCode(t, 'ERR_INVALID_ARGUMENT', () => vm.createVcpu({ features: wrong(['psci-9']) }));
  t.is(vm.createVcpu().id, 0);
});

needs('x86_64')('vm.createVcpu: features are aarch64’s', t => {
  using vm = Vm.create();
  throwsCode(t, 'ERR_INVALID_ARGUMENT', () => vm.createVcpu({ features: ['psci-0.2'] }));
});
