import { type CpuidEntry, KiB, Kvm, Vm } from '../../ts/index.ts';
import { type Code, ENTRY, STOP, STOPPED } from '../helpers/guests.ts';
import { needs, onKvm } from '../helpers/needs.ts';
import { throwsCode } from '../helpers/throws.ts';
import { hypervCpuid, word } from '../helpers/x86.ts';

const test = needs('x86_64', 'ext-cpuid');

/** mov eax, leaf; mov ecx, index; cpuid; hlt */
function ask(leaf: number, index = 0): Code {
  return [0x66, 0xb8, ...word(leaf), 0x66, 0xb9, ...word(index), 0x0f, 0xa2, ...STOP];
}

/** What a vCPU made with that CPUID says to each of the questions. */
async function answers(cpuid: readonly CpuidEntry[] | undefined, ...questions: readonly Code[]): Promise<unknown[]> {
  using vm = Vm.create();
  vm.memory.map({ gpa: 0, size: 64 * KiB });
  vm.memory.write(ENTRY, Uint8Array.from(questions.flat()));
  const vcpu = vm.createVcpu({ cpuid });
  vcpu.boot({ mode: 'real', entry: ENTRY });
  const all = [];
  for (const _ of questions) {
    all.push(await vcpu.run());
    const registers = vcpu.getRegisters();
    if (registers.arch !== 'x86_64') continue;
    const { rax: eax, rbx: ebx, rcx: ecx, rdx: edx } = registers;
    all.push([eax, ebx, ecx, edx].map(Number));
  }
  return all;
}

test('vm.createVcpu: a guest gets the CPUID that was chosen, leaf by leaf and index by index', async t => {
  using kvm = Kvm.open();
  const cpuid = [
    ...kvm.supportedCpuid.filter(leaf => leaf.function !== 4 && leaf.function >>> 28 !== 4),
    { function: 0x4000_0000, eax: 0x4000_0000, ebx: 2, ecx: 3, edx: 2 ** 32 - 1 },
    { function: 4, index: 0, eax: 10, ebx: 11, ecx: 12, edx: 13 },
    { function: 4, index: 3, eax: 20, ebx: 21, ecx: 22, edx: 23 },
  ];
  t.deepEqual(await answers(cpuid, ask(0x4000_0000, 77), ask(4, 0), ask(4, 3)), [
    STOPPED,
    [0x4000_0000, 2, 3, 2 ** 32 - 1],
    STOPPED,
    [10, 11, 12, 13],
    STOPPED,
    [20, 21, 22, 23],
  ]);
});

test('vm.createVcpu: what KVM supports is the default, and can be given back', async t => {
  using kvm = Kvm.open();
  const { supportedCpuid } = kvm;
  const vendor = supportedCpuid.find(leaf => leaf.function === 0);
  const chosen = await answers(supportedCpuid, ask(0), ask(0x8000_0000));
  t.deepEqual(chosen, await answers(undefined, ask(0), ask(0x8000_0000)));
  t.deepEqual(chosen.slice(0, 2), [STOPPED, [vendor?.eax, vendor?.ebx, vendor?.ecx, vendor?.edx]]);
});

test('vm.createVcpu: entries that answer the same are refused by their place, and cost no id', t => {
  using vm = Vm.create();
  const cpuid = hypervCpuid();
  const twice = [...cpuid, { function: 0x4000_0001, index: 2, eax: 0, ebx: 0, ecx: 0, edx: 0 }];
  const error = throwsCode(t, 'ERR_INVALID_ARGUMENT', () => vm.createVcpu({ cpuid: twice }));
  t.true(error?.message.startsWith(`cpuid[${cpuid.length}] answers what an earlier entry answers`), error?.message);
  t.is(vm.createVcpu({ cpuid }).id, 0);
});

needs('x86_64', 'sys-hyperv-cpuid')(
  'kvm.supportedHypervCpuid: is what a vCPU takes in the place of KVM’s own',
  async t => {
    using kvm = Kvm.open();
    const leaves = kvm.supportedHypervCpuid;
    t.true(Object.isFrozen(leaves));
    const features = leaves.find(leaf => leaf.function === 0x4000_0003);
    const processor = kvm.supportedCpuid.filter(leaf => leaf.function >>> 8 !== 0x40_0000);
    const [, seen] = await answers([...processor, ...leaves], ask(0x4000_0003));
    t.deepEqual(seen, [features?.eax, features?.ebx, features?.ecx, features?.edx]);
  },
);

for (const [name, capability] of [
  ['supportedCpuid', 'ext-cpuid'],
  ['supportedHypervCpuid', 'sys-hyperv-cpuid'],
] as const) {
  onKvm(`kvm.${name}: without ${capability} is ERR_CAPABILITY_MISSING, with the first kernel that has it`, t => {
    using kvm = Kvm.open({ hide: [capability] });
    const error = throwsCode(t, 'ERR_CAPABILITY_MISSING', () => kvm[name]);
    t.is(error?.capability, capability);
    t.regex(error?.since ?? '', /^5\.1[01]( or earlier)?$/u);
  });
}

needs('aarch64')('vm.createVcpu: a CPUID is x86_64’s, and so is Hyper-V', t => {
  using vm = Vm.create();
  const error = throwsCode(t, 'ERR_INVALID_ARGUMENT', () => vm.createVcpu({ cpuid: [] }));
  t.regex(error?.message ?? '', /absent on aarch64/u);
  throwsCode(t, 'ERR_INVALID_ARGUMENT', () => vm.createVcpu({ hyperv: { synic: true } }));
  t.is(vm.createVcpu({ hyperv: { synic: false } }).id, 0);
});
