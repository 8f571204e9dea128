/** The part of the addon's shape (native.ts) that is about which exits a VM makes. */

export interface NativeExitSwitches {
  msr: NativeMsrExits | null;
  hypercalls: string[];
  emulationFailure: boolean;
  disable: string[];
  busLock: boolean;
  notify: number | null;
  xen: number | null;
  nisv: boolean;
}

export interface NativeMsrExits {
  reasons: string[];
  filter: NativeMsrRange[] | null;
  denyOthers: boolean;
}

export interface NativeMsrRange {
  base: number;
  count: number;
  read: boolean;
  write: boolean;
  allow: boolean;
  bitmap: Uint8Array | null;
}
