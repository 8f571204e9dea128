/** Everything that is wrong to ask for, and the code that says so: for a test, and for a program that looks for leaks. */

import { type CpuidEntry, type ErrorCode, Kvm, KiB, type MemorySlot, MiB, TypevisorError, Vm } from '../../ts/index.ts';
import { wrong } from './throws.ts';

/** What, the code, and how. Each is given a VM with 64 KiB from 0 on and one vCPU, and leaves it as it is. */
export type BadInput = readonly [string, ErrorCode, (vm: Vm, vcpu: ReturnType<Vm['createVcpu']>) => unknown];

/** Where a file would be, and is not. */
const NO_FILE = '/no/such/folder/bios.bin';

/** A register of the machine at hand. */
const REGISTER = process.arch === 'arm64' ? 'x0' : 'rax';

/** What most of it would map: a size that no mapping of the process has by chance. */
export const SIZE: number = 48 * MiB;

/** An answer of CPUID; on aarch64 any is refused. */
const LEAF: CpuidEntry = { function: 0, eax: 0, ebx: 0, ecx: 0, edx: 0 };

/** Where there is nothing yet. */
const PLACE = { gpa: 1 * MiB, size: SIZE };

/** Backings that cannot be. */
const BAD_BACKINGS: readonly (readonly [string, ErrorCode, (vm: Vm) => unknown])[] = [
  ['a backing that there is not', 'ERR_INVALID_ARGUMENT', () => 'disk'],
  ['a backing as a number', 'ERR_INVALID_ARGUMENT', () => 1],
  ['a backing as null', 'ERR_INVALID_ARGUMENT', () => null],
  ['a backing without content', 'ERR_INVALID_ARGUMENT', () => ({})],
  ['a backing as an array', 'ERR_INVALID_ARGUMENT', () => ['memfd']],
  ['two backings at once', 'ERR_INVALID_ARGUMENT', vm => ({ file: '/dev/null', share: first(vm) })],
  ['huge pages of no size', 'ERR_INVALID_ARGUMENT', () => ({ hugetlb: 0 })],
  ['huge pages of half a byte', 'ERR_OUT_OF_RANGE', () => ({ hugetlb: 0.5 })],
  ['a file that is not there', 'ERR_IO', () => ({ file: NO_FILE })],
  ['a file that is none', 'ERR_INVALID_ARGUMENT', () => ({ file: '/dev/zero' })],
  ['a file that is an object', 'ERR_INVALID_ARGUMENT', () => ({ file: {} })],
  ['a file of the web', 'ERR_INVALID_ARGUMENT', () => ({ file: new URL('https://example.org/') })],
  ['a descriptor of nothing', 'ERR_IO', () => ({ file: 2 ** 31 - 1 })],
  ['a file in no mode', 'ERR_INVALID_ARGUMENT', () => ({ file: '/dev/zero', mode: 'public' })],
  ['a file from before its start', 'ERR_OUT_OF_RANGE', () => ({ file: '/dev/zero', offset: -4096 })],
  ['a buffer that is not shared', 'ERR_INVALID_ARGUMENT', () => ({ buffer: new ArrayBuffer(8 * KiB) })],
  [
    'a buffer that is too short',
    'ERR_INVALID_ARGUMENT',
    () => ({ buffer: new SharedArrayBuffer(4 * KiB, { maxByteLength: 8 * KiB }) }),
  ],
  ['a buffer that is too short and cannot grow', 'ERR_UNALIGNED', () => ({ buffer: new SharedArrayBuffer(8) })],
  ['a buffer of fixed length', 'ERR_UNALIGNED', () => ({ buffer: new SharedArrayBuffer(8 * KiB) })],
  ['a share of nothing', 'ERR_INVALID_ARGUMENT', () => ({ share: {} })],
  ['a share of a gone slot', 'ERR_CLOSED', ({ memory }) => ({ share: gone(memory) })],
  ['a share off a page', 'ERR_UNALIGNED', vm => ({ share: first(vm), offset: 5 })],
  ['a share past its slot', 'ERR_INVALID_ARGUMENT', vm => ({ share: first(vm), offset: 60 * KiB })],
];

/** The table. */
export const BAD_INPUT: readonly BadInput[] = [
  ['a misaligned address', 'ERR_UNALIGNED', ({ memory }) => memory.map({ gpa: 1 * MiB + 1, size: SIZE })],
  ['a misaligned size', 'ERR_UNALIGNED', ({ memory }) => memory.map({ gpa: 1 * MiB, size: 100 })],
  ['an overlapping slot', 'ERR_SLOT_OVERLAP', ({ memory }) => memory.map({ gpa: 60 * KiB, size: SIZE })],
  ['a slot past the last address', 'ERR_OUT_OF_RANGE', ({ memory }) => memory.map({ gpa: 2 ** 52, size: SIZE })],
  ['a slot of no size', 'ERR_OUT_OF_RANGE', ({ memory }) => memory.map({ gpa: 1 * MiB, size: 0 })],
  ['an unknown option', 'ERR_INVALID_ARGUMENT', ({ memory }) => memory.map(wrong({ gpa: 1 * MiB, sice: 4096 }))],
  [
    'null for an option',
    'ERR_INVALID_ARGUMENT',
    ({ memory }) => memory.map(wrong({ gpa: 1 * MiB, size: 4096, readonly: null })),
  ],
  ...BAD_BACKINGS.map(([what, code, backing]): BadInput => [
    what,
    code,
    vm => vm.memory.map({ ...PLACE, backing: wrong(backing(vm)) }),
  ]),
  ['an address space below all', 'ERR_OUT_OF_RANGE', ({ memory }) => memory.map({ ...PLACE, addressSpace: -1 })],
  [
    'an address space as a string',
    'ERR_INVALID_ARGUMENT',
    ({ memory }) => memory.map(wrong({ ...PLACE, addressSpace: '0' })),
  ],
  ['an address space past all', 'ERR_OUT_OF_RANGE', ({ memory }) => memory.addressSpace(0x1_0000)],
  [
    'huge pages as a number',
    'ERR_INVALID_ARGUMENT',
    ({ memory }) => memory.map(wrong({ ...PLACE, transparentHugePages: 1 })),
  ],
  ['a view of other memory', 'ERR_INVALID_ARGUMENT', vm => first(vm).view()],
  ['read-only as a number', 'ERR_INVALID_ARGUMENT', vm => first(vm).setReadonly(wrong(1))],
  ['a dirty log as nothing', 'ERR_INVALID_ARGUMENT', vm => first(vm).setDirtyLog(wrong(undefined))],
  ['a move to a bigint', 'ERR_INVALID_ARGUMENT', vm => first(vm).move(wrong(0n))],
  ['a change that is no function', 'ERR_INVALID_ARGUMENT', ({ memory }) => memory.change(wrong({}))],
  [
    'a change that is asynchronous',
    'ERR_INVALID_ARGUMENT',
    ({ memory }) => memory.change(wrong(async () => undefined)),
  ],
  ['a change of no slot', 'ERR_INVALID_ARGUMENT', ({ memory }) => memory.change(tx => tx.unmap(wrong({})))],
  ['a change of a gone slot', 'ERR_CLOSED', ({ memory }) => memory.change(tx => tx.move(gone(memory), 0))],
  [
    'a change of another VM’s slot',
    'ERR_INVALID_ARGUMENT',
    ({ memory }) => withForeign(slot => memory.change(tx => tx.setReadonly(slot, true))),
  ],
  [
    'a change that overlaps, after one that would do',
    'ERR_SLOT_OVERLAP',
    vm =>
      vm.memory.change(tx => {
        tx.move(first(vm), 1 * MiB);
        tx.map(PLACE);
      }),
  ],
  ['a search for nothing', 'ERR_INVALID_ARGUMENT', ({ memory }) => memory.search(0, 4 * KiB, new Uint8Array())],
  ['a search for a string', 'ERR_INVALID_ARGUMENT', ({ memory }) => memory.search(0, 4 * KiB, wrong('abc'))],
  ['a search past the memory', 'ERR_MEMORY_HOLE', ({ memory }) => memory.search(0, 1 * MiB, Uint8Array.of(1))],
  [
    'a search with no limit',
    'ERR_OUT_OF_RANGE',
    ({ memory }) => memory.search(0, 4 * KiB, Uint8Array.of(1), { limit: 0 }),
  ],
  ['a read past the memory', 'ERR_MEMORY_HOLE', ({ memory }) => memory.read(64 * KiB - 1, 2)],
  ['a write past the memory', 'ERR_MEMORY_HOLE', ({ memory }) => memory.write(64 * KiB - 1, new Uint8Array(2))],
  ['a read at no address', 'ERR_OUT_OF_RANGE', ({ memory }) => memory.read(-1, 1)],
  ['a read of more than there can be', 'ERR_OUT_OF_RANGE', ({ memory }) => memory.read(0, 2 ** 52)],
  ['an address as a bigint', 'ERR_INVALID_ARGUMENT', ({ memory }) => memory.read(wrong(0n), 1)],
  ['a Proxy of bytes', 'ERR_INVALID_ARGUMENT', ({ memory }) => memory.write(0, new Proxy(new Uint8Array(1), {}))],
  [
    'an heir of bytes',
    'ERR_INVALID_ARGUMENT',
    ({ memory }) => memory.write(0, wrong(Object.create(Uint8Array.prototype))),
  ],
  ['a register of the wrong type', 'ERR_INVALID_ARGUMENT', (_, vcpu) => vcpu.setRegisters(wrong({ [REGISTER]: 1 }))],
  ['a register that does not fit', 'ERR_OUT_OF_RANGE', (_, vcpu) => vcpu.setRegisters({ [REGISTER]: 2n ** 64n })],
  ['an unknown register', 'ERR_INVALID_ARGUMENT', (_, vcpu) => vcpu.setRegisters(wrong({ eax: 1n }))],
  ['registers as an array', 'ERR_INVALID_ARGUMENT', (_, vcpu) => vcpu.setRegisters(wrong([]))],
  ['an answer nobody wants', 'ERR_NO_ANSWER_EXPECTED', (_, vcpu) => vcpu.answer(1)],
  ['an answer as a string', 'ERR_INVALID_ARGUMENT', (_, vcpu) => vcpu.answer(wrong('1'))],
  ['a time limit of nothing', 'ERR_INVALID_ARGUMENT', (_, vcpu) => vcpu.runSync(wrong({ timeoutMs: null }))],
  ['a vCPU id that is taken', 'ERR_INVALID_ARGUMENT', (vm, { id }) => vm.createVcpu({ id })],
  ['an affinity to nothing', 'ERR_INVALID_ARGUMENT', vm => vm.createVcpu({ affinity: [] })],
  ['an affinity to a processor that there is not', 'ERR_INVALID_ARGUMENT', vm => vm.createVcpu({ affinity: [8191] })],
  ['a name that no thread has', 'ERR_INVALID_ARGUMENT', vm => vm.createVcpu({ name: 'much too long for one' })],
  ['a CPUID as a word', 'ERR_INVALID_ARGUMENT', vm => vm.createVcpu({ cpuid: wrong('host') })],
  ['a CPUID with nothing in it', 'ERR_INVALID_ARGUMENT', vm => vm.createVcpu({ cpuid: wrong([undefined]) })],
  [
    'a leaf of what there is not',
    'ERR_INVALID_ARGUMENT',
    vm => vm.createVcpu({ cpuid: wrong([{ ...LEAF, leaf: 1 }]) }),
  ],
  ['a leaf as a bigint', 'ERR_INVALID_ARGUMENT', vm => vm.createVcpu({ cpuid: wrong([{ ...LEAF, eax: 1n }]) })],
  ['a leaf of more than 32 bits', 'ERR_OUT_OF_RANGE', vm => vm.createVcpu({ cpuid: [{ ...LEAF, edx: 2 ** 32 }] })],
  ['a leaf below all', 'ERR_OUT_OF_RANGE', vm => vm.createVcpu({ cpuid: [{ ...LEAF, function: -1 }] })],
  ['half a subleaf', 'ERR_OUT_OF_RANGE', vm => vm.createVcpu({ cpuid: [{ ...LEAF, index: 0.5 }] })],
  ['a leaf twice', 'ERR_INVALID_ARGUMENT', vm => vm.createVcpu({ cpuid: [LEAF, { ...LEAF, index: 1 }] })],
  [
    'more leaves than KVM takes',
    'ERR_INVALID_ARGUMENT',
    vm => vm.createVcpu({ cpuid: Array.from({ length: 257 }, (_, at) => ({ ...LEAF, function: at })) }),
  ],
  ['Hyper-V as a word', 'ERR_INVALID_ARGUMENT', vm => vm.createVcpu({ hyperv: wrong('on') })],
  ['a controller as a number', 'ERR_INVALID_ARGUMENT', vm => vm.createVcpu({ hyperv: wrong({ synic: 1 }) })],
  ['a vCPU id below all', 'ERR_OUT_OF_RANGE', vm => vm.createVcpu({ id: -1 })],
  ['a port past all', 'ERR_OUT_OF_RANGE', vm => vm.bus.port(0x1_0000, 1, wrong({ read: () => 0 }))],
  ['no device', 'ERR_INVALID_ARGUMENT', vm => vm.bus.port(0x10, 1, wrong({}))],
  [
    'a console that goes nowhere',
    'ERR_INVALID_ARGUMENT',
    vm => vm.bus.port(0x10, 1, wrong({ device: 'debug-console', sink: 5 })),
  ],
  ['no policy', 'ERR_INVALID_ARGUMENT', vm => vm.bus.unclaimed(wrong(undefined))],
  ['a missing firmware file', 'ERR_IO', vm => vm.loadFirmware(NO_FILE)],
  ['a firmware that is none', 'ERR_GUEST_IMAGE', vm => vm.loadFirmware(new Uint8Array(100))],
  ['a closed VM', 'ERR_CLOSED', () => closedVm().memory.map({ gpa: 0, size: SIZE })],
  ['an address space of a closed VM', 'ERR_CLOSED', () => closedVm().memory.addressSpace(0)],
  ['a vCPU of a closed VM', 'ERR_CLOSED', () => closedVm().createVcpu()],
  ['a VM option as null', 'ERR_INVALID_ARGUMENT', () => Vm.create(wrong({ irqchip: null }))],
  ['exits as a list', 'ERR_INVALID_ARGUMENT', () => Vm.create({ exits: wrong(['msr']) })],
  ['an exit that there is not', 'ERR_INVALID_ARGUMENT', () => Vm.create({ exits: wrong({ vmx: true }) })],
  [
    'an exit of the other processor',
    'ERR_CAPABILITY_MISSING',
    () => Vm.create({ exits: process.arch === 'arm64' ? { msr: true } : { nisv: true } }),
  ],
  ['Xen without a register', 'ERR_INVALID_ARGUMENT', () => Vm.create({ exits: wrong({ xen: {} }) })],
  ['no Kvm', 'ERR_INVALID_ARGUMENT', () => Vm.create(wrong({ kvm: {} }))],
  ['an absent /dev/kvm', 'ERR_KVM_UNAVAILABLE', () => Kvm.open({ path: '/dev/no-such-kvm' })],
  ['a device that is no KVM', 'ERR_KVM_UNAVAILABLE', () => Kvm.open({ path: '/dev/null' })],
  ['a closed Kvm', 'ERR_CLOSED', () => Vm.create({ kvm: closedKvm() })],
  ['the CPUID of a closed Kvm', 'ERR_CLOSED', () => closedKvm().supportedCpuid],
  ['the CPUID of Hyper-V of a closed Kvm', 'ERR_CLOSED', () => closedKvm().supportedHypervCpuid],
  ['an unknown capability to hide', 'ERR_INVALID_ARGUMENT', () => Kvm.open(wrong({ hide: ['no-such'] }))],
];

/** The same of what gives promises: each rejects. */
export const BAD_PROMISES: readonly (readonly [string, ErrorCode, (vm: Vm) => Promise<unknown>])[] = [
  ...BAD_BACKINGS.map(
    ([what, code, backing]) =>
      [what, code, (vm: Vm) => vm.memory.promises.map({ ...PLACE, backing: wrong(backing(vm)) })] as const,
  ),
  ['a map of nothing', 'ERR_INVALID_ARGUMENT', vm => vm.memory.promises.map(wrong(undefined))],
  ['an overlap', 'ERR_SLOT_OVERLAP', vm => vm.memory.promises.map({ gpa: 0, size: SIZE })],
  ['an unmapping of nothing', 'ERR_INVALID_ARGUMENT', vm => vm.memory.promises.unmap(wrong(null))],
  ['a move of nothing', 'ERR_INVALID_ARGUMENT', vm => vm.memory.promises.move(wrong('slot'), 0)],
  ['a move to a bigint', 'ERR_INVALID_ARGUMENT', vm => vm.memory.promises.move(first(vm), wrong(0n))],
  ['a move off a page', 'ERR_UNALIGNED', vm => vm.memory.promises.move(first(vm), 5)],
  [
    'an unmapping of another VM’s slot',
    'ERR_INVALID_ARGUMENT',
    vm => withForeign(slot => vm.memory.promises.unmap(slot)),
  ],
  [
    'an unmapping of a slot that a closed VM had',
    'ERR_INVALID_ARGUMENT',
    vm => vm.memory.promises.unmap(withForeign(slot => slot)),
  ],
  ['a move of another VM’s slot', 'ERR_INVALID_ARGUMENT', vm => withForeign(slot => vm.memory.promises.move(slot, 0))],
  ['a change that is no function', 'ERR_INVALID_ARGUMENT', vm => vm.memory.promises.change(wrong(undefined))],
  ['a change that is asynchronous', 'ERR_INVALID_ARGUMENT', vm => vm.memory.promises.change(wrong(async () => {}))],
  ['a read past the memory', 'ERR_MEMORY_HOLE', vm => vm.memory.promises.read(0, 1 * MiB)],
  ['a read of more than there can be', 'ERR_OUT_OF_RANGE', vm => vm.memory.promises.read(0, 2 ** 52)],
  ['a write of a string', 'ERR_INVALID_ARGUMENT', vm => vm.memory.promises.write(0, wrong('abc'))],
  ['a write past the memory', 'ERR_MEMORY_HOLE', vm => vm.memory.promises.write(64 * KiB, Uint8Array.of(1))],
  ['a fill of more than a byte', 'ERR_OUT_OF_RANGE', vm => vm.memory.promises.fill(0, 1, 256)],
  ['a closed VM', 'ERR_CLOSED', () => closedVm().memory.promises.map({ gpa: 0, size: SIZE })],
];

/** The slot that is there. */
function first({ memory }: Vm): MemorySlot {
  return memory.slotAt(0) ?? failed();
}

/** Does something with the slot of a VM that ends with it. */
function withForeign<T>(act: (slot: MemorySlot) => T): T {
  using other = Vm.create();
  return act(other.memory.map(PLACE));
}

function gone(memory: Vm['memory']): MemorySlot {
  const slot = memory.map({ gpa: 2 * MiB, size: SIZE });
  slot.unmap();
  return slot;
}

function failed(): never {
  throw new Error('the VM has no slot');
}

function closedVm(): Vm {
  const vm = Vm.create();
  vm.close();
  return vm;
}

function closedKvm(): Kvm {
  const kvm = Kvm.open();
  kvm.close();
  return kvm;
}

/** The code that `act` fails with, at once or by what it promises. */
export async function codeOf(act: () => unknown): Promise<string> {
  try {
    await act();
    return 'no error';
  } catch (error) {
    if (!(error instanceof TypevisorError)) throw error;
    return error.code;
  }
}
