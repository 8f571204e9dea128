/** What the kernel says beside an exit, whatever that is. */

/**
 * What holds of the exit that a vCPU delivered last, beside what it is: `kvm_run.flags` (api.rst section 5). A frozen copy.
 */
export interface RunFlags {
  /** All 16 of them as they came. On aarch64 bit 0 says that a `debug` exit has the upper half of its syndrome, and nothing else is there. */
  readonly bits: number;
  /** The vCPU is in system management mode (`KVM_RUN_X86_SMM`). */
  readonly smm: boolean;
  /**
   * The guest locked the bus, in a VM made with `exits.busLock` (`KVM_RUN_X86_BUS_LOCK`, Linux 5.12): in a `bus-lock` exit
   * always, and in any other one if the same instruction made both. True as well where that other one was a device's, since
   * the last exit that was delivered.
   */
  readonly busLock: boolean;
  /** The vCPU runs a guest of its guest's (`KVM_RUN_X86_GUEST_MODE`, Linux 6.11). */
  readonly guestMode: boolean;
}
