/** Pieces of x86 code beyond what guests of both processors do, and the CPUID that guests of Hyper-V look for. */

import { type CpuidEntry, Kvm } from '../../ts/index.ts';
import type { Code } from './guests.ts';

/** Real mode: mov ecx, index; rdmsr */
export function rdmsr(index: number): Code {
  return [0x66, 0xb9, ...word(index), 0x0f, 0x32];
}

/** Real mode: mov ecx, index; mov eax, low; mov edx, high; wrmsr */
export function wrmsr(index: number, low: number, high = 0): Code {
  return [0x66, 0xb9, ...word(index), 0x66, 0xb8, ...word(low), 0x66, 0xba, ...word(high), 0x0f, 0x30];
}

/** Code of 32 or 64 bits: the same. */
export function wrmsrLong(index: number, low: number): Code {
  return [0xb9, ...word(index), 0xb8, ...word(low), 0x31, 0xd2, 0x0f, 0x30];
}

/** Little-endian. */
export function word(value: number): Code {
  return [value & 0xff, (value >>> 8) & 0xff, (value >>> 16) & 0xff, value >>> 24];
}

/** What KVM supports, with the leaves of Hyper-V in the place of KVM's own: also where KVM does not say that it has them. */
export function hypervCpuid(): CpuidEntry[] {
  using kvm = Kvm.open();
  const none = { eax: 0, ebx: 0, ecx: 0, edx: 0 };
  return [
    ...kvm.supportedCpuid.filter(leaf => leaf.function >>> 8 !== 0x40_0000),
    { function: 0x4000_0000, eax: 0x4000_0003, ebx: 0x7263_694d, ecx: 0x666f_736f, edx: 0x7648_2074 }, // Microsoft Hv
    { ...none, function: 0x4000_0001, eax: 0x3123_7648 }, // Hv#1
    // Registers of the synthetic controller, hypercalls, index and reset; messages and events; registers of crashes
    { ...none, function: 0x4000_0003, eax: 0xe4, ebx: 0x30, edx: 0x400 },
  ];
}
