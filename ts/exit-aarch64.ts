/** Exits that only aarch64 has. */

/**
 * The guest reached for an address without memory by an instruction that the processor does not describe, as `ldp`, `stp`,
 * SIMD or writeback, and `KVM_CAP_ARM_NISV_TO_USER` (Linux 5.5) makes that an exit and no failure. `esrIss` holds the valid
 * bits of `ESR_EL2`, `faultIpa` is the guest physical address. The guest stands at that instruction, and nothing skips it.
 * (api.rst section 5, `KVM_EXIT_ARM_NISV`)
 */
export interface ArmNisvExit {
  readonly kind: 'arm-nisv';
  readonly esrIss: bigint;
  readonly faultIpa: number;
}

/**
 * The same for a load or store of 64 bytes at once (`ld64b`, `st64b`, `st64bv`, `st64bv0`), where the guest was given them by
 * `ID_AA64ISAR1_EL1`. (api.rst section 5, `KVM_EXIT_ARM_LDST64B`)
 */
export interface ArmLdst64bExit {
  readonly kind: 'arm-ldst64b';
  readonly esrIss: bigint;
  readonly faultIpa: number;
}

/**
 * An access of the guest met a synchronous external abort that the host cannot handle (capability `arm-sea-to-user`, Linux
 * 6.19). `esr` holds the valid bits of `ESR_EL2`; `gva` is there where the processor knows the virtual address, `gpa` where
 * the kernel knows the physical one. (api.rst section 5, `KVM_EXIT_ARM_SEA`)
 */
export interface ArmSeaExit {
  readonly kind: 'arm-sea';
  readonly flags: bigint;
  readonly esr: bigint;
  readonly gva?: bigint;
  readonly gpa?: number;
}
