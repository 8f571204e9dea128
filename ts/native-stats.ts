/** The part of the addon's shape (native.ts) that is about statistics. */

export interface NativeStats {
  /** `null` where KVM has none. */
  kvm: NativeStat[] | null;
  /** Of the kinds of which there were any. */
  exits: NativeExitCount[];
  /** `null` where time is not measured, and so with `handlerMs`. */
  guestMs: number | null;
}

export interface NativeStat {
  name: string;
  kind: string;
  unit: string;
  base: number | null;
  exponent: number;
  bucketSize: number | null;
  values: bigint[];
}

export interface NativeExitCount {
  kind: string;
  count: number;
  handlerMs: number | null;
}
