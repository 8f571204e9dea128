//! What only tests look at. Not in a release build: the feature `test-hooks` brings it.

/// How many ioctls this room's own requests have issued on the calling thread: those that set slots, `KVM_RUN`, and what
/// else kvm-ioctls lacks. A test that something is refused before the kernel is asked compares two answers.
///
/// ```
/// let before = typevisor::hooks::ioctls();
/// assert_eq!(typevisor::hooks::ioctls(), before);
/// ```
#[must_use]
pub fn ioctls() -> u64 {
    crate::sys::ioctl::issued()
}

/// Holds the vCPUs of `vm` out of the guest until the value is dropped, as a change of its memory does for as long as one
/// of them sleeps in the kernel.
///
/// ```no_run
/// use typevisor::{Kvm, Vm, VmOptions};
/// let vm = Vm::create(&Kvm::open(Default::default())?, &VmOptions::default())?;
/// let held = typevisor::hooks::hold(&vm);
/// drop(held);
/// # Ok::<(), typevisor::Error>(())
/// ```
#[must_use]
pub fn hold(vm: &crate::Vm) -> impl Sized {
    vm.hold()
}

/// Stores an exit reason in the vCPU's `kvm_run` page, as an earlier run may have left it there.
///
/// ```no_run
/// use typevisor::{Kvm, Vm, VmOptions, vcpu::VcpuOptions};
/// let vm = Vm::create(&Kvm::open(Default::default())?, &VmOptions::default())?;
/// typevisor::hooks::leave_exit_reason(&vm.create_vcpu(VcpuOptions::default())?, 39)?;
/// # Ok::<(), typevisor::Error>(())
/// ```
///
/// # Errors
/// [`crate::Error::Busy`] while the vCPU runs, [`crate::Error::Closed`].
pub fn leave_exit_reason(vcpu: &crate::Vcpu, reason: u32) -> crate::error::Result<()> {
    vcpu.leave_exit_reason(reason)
}

/// Fills the payload of the vCPU's `kvm_run` page, as an earlier exit may have left it: what is found there after a run is
/// what the kernel wrote, and this byte.
///
/// ```no_run
/// use typevisor::{Kvm, Vm, VmOptions, vcpu::VcpuOptions};
/// let vm = Vm::create(&Kvm::open(Default::default())?, &VmOptions::default())?;
/// typevisor::hooks::leave_payload(&vm.create_vcpu(VcpuOptions::default())?, 0xa5)?;
/// # Ok::<(), typevisor::Error>(())
/// ```
///
/// # Errors
/// Those of [`leave_exit_reason`].
pub fn leave_payload(vcpu: &crate::Vcpu, byte: u8) -> crate::error::Result<()> {
    vcpu.leave_payload(byte)
}

/// The vCPU's `kvm_run` page as the last run left it, by the header's offsets; the first eight bytes are not read, and 0.
///
/// ```no_run
/// use typevisor::{Kvm, Vm, VmOptions, vcpu::VcpuOptions};
/// let vm = Vm::create(&Kvm::open(Default::default())?, &VmOptions::default())?;
/// assert!(typevisor::hooks::run_page(&vm.create_vcpu(VcpuOptions::default())?)?.len() >= 4096);
/// # Ok::<(), typevisor::Error>(())
/// ```
///
/// # Errors
/// Those of [`leave_exit_reason`].
pub fn run_page(vcpu: &crate::Vcpu) -> crate::error::Result<Vec<u8>> {
    vcpu.run_page()
}
