/** The part of the addon's shape (native.ts) that is about what a vCPU is made with, and what it says beside its exits. */

export interface NativeVcpuOptions {
  id: number | null;
  features: string[] | null;
  cpuid: NativeCpuidEntry[] | null;
  hypervSynic: boolean;
  affinity: number[] | null;
  name: string | null;
}

export interface NativeCpuidEntry {
  function: number;
  index: number | null;
  eax: number;
  ebx: number;
  ecx: number;
  edx: number;
}

export interface NativeRunFlags {
  bits: number;
  smm: boolean;
  busLock: boolean;
  guestMode: boolean;
}
