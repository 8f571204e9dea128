/** Everything that is wrong to ask for, and the code that says so: for a test, and for a program that looks for leaks. */

import { type ErrorCode, Kvm, KiB, MiB, TypevisorError, Vm } from '../../ts/index.ts';
import { wrong } from './throws.ts';

/** What, the code, and how. Each is given a VM with 64 KiB from 0 on and one vCPU, and leaves it as it is. */
export type BadInput = readonly [string, ErrorCode, (vm: Vm, vcpu: ReturnType<Vm['createVcpu']>) => unknown];

/** Where a file would be, and is not. */
const NO_FILE = '/no/such/folder/bios.bin';

/** A register of the machine at hand. */
const REGISTER = process.arch === 'arm64' ? 'x0' : 'rax';

/** The table. */
export const BAD_INPUT: readonly BadInput[] = [
  ['a misaligned address', 'ERR_UNALIGNED', ({ memory }) => memory.map({ gpa: 1 * MiB + 1, size: 4 * KiB })],
  ['a misaligned size', 'ERR_UNALIGNED', ({ memory }) => memory.map({ gpa: 1 * MiB, size: 100 })],
  ['an overlapping slot', 'ERR_SLOT_OVERLAP', ({ memory }) => memory.map({ gpa: 60 * KiB, size: 8 * KiB })],
  ['a slot past the last address', 'ERR_OUT_OF_RANGE', ({ memory }) => memory.map({ gpa: 2 ** 52, size: 4 * KiB })],
  ['a slot of no size', 'ERR_OUT_OF_RANGE', ({ memory }) => memory.map({ gpa: 1 * MiB, size: 0 })],
  ['an unknown option', 'ERR_INVALID_ARGUMENT', ({ memory }) => memory.map(wrong({ gpa: 1 * MiB, sice: 4096 }))],
  [
    'null for an option',
    'ERR_INVALID_ARGUMENT',
    ({ memory }) => memory.map(wrong({ gpa: 1 * MiB, size: 4096, readonly: null })),
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
  ['a closed VM', 'ERR_CLOSED', () => closedVm().memory.map({ gpa: 0, size: 4 * KiB })],
  ['a vCPU of a closed VM', 'ERR_CLOSED', () => closedVm().createVcpu()],
  ['a VM option as null', 'ERR_INVALID_ARGUMENT', () => Vm.create(wrong({ irqchip: null }))],
  ['no Kvm', 'ERR_INVALID_ARGUMENT', () => Vm.create(wrong({ kvm: {} }))],
  ['an absent /dev/kvm', 'ERR_KVM_UNAVAILABLE', () => Kvm.open({ path: '/dev/no-such-kvm' })],
  ['a device that is no KVM', 'ERR_KVM_UNAVAILABLE', () => Kvm.open({ path: '/dev/null' })],
  ['a closed Kvm', 'ERR_CLOSED', () => Vm.create({ kvm: closedKvm() })],
  ['an unknown capability to hide', 'ERR_INVALID_ARGUMENT', () => Kvm.open(wrong({ hide: ['no-such'] }))],
];

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

/** The code that `act` fails with. */
export function codeOf(act: () => unknown): string {
  try {
    act();
    return 'no error';
  } catch (error) {
    if (!(error instanceof TypevisorError)) throw error;
    return error.code;
  }
}
