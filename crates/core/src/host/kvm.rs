//! The open `/dev/kvm`: checked once, then asked for capabilities and for VMs (api.rst 4.1, 4.2, 4.4).

use std::{
    ffi::CString,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use kvm_ioctls::VmFd;

use super::{
    Capabilities, Capability, CpuidEntry, ask,
    machine::{DeviceNode, Machine},
    require,
    unavailable::Unavailable,
};
use crate::error::{Errno, Error, Result};

/// Where KVM's device is.
pub(super) const DEVICE: &str = "/dev/kvm";

/// `KVM_CREATE_VM` may fail with `EINTR` where a signal comes at the wrong moment; nothing has happened then.
const CREATE_VM_ATTEMPTS: usize = 5;

/// How to open KVM.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KvmOptions {
    /// The device; `/dev/kvm` if absent.
    pub path: Option<PathBuf>,
    /// Capabilities to treat as absent, to test what happens on a kernel that lacks them.
    pub hide: Vec<Capability>,
}

/// An open KVM device that speaks version 12 of the interface. Clones share the one descriptor.
///
/// ```no_run
/// use typevisor::{Kvm, host::{Capability, KvmOptions}};
/// let kvm = Kvm::open(KvmOptions::default())?;
/// assert!(kvm.capabilities().has(Capability::UserMemory));
/// # Ok::<(), typevisor::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Kvm {
    open: Arc<Open>,
}

#[derive(Debug)]
struct Open {
    device: kvm_ioctls::Kvm,
    path: PathBuf,
    hide: Box<[Capability]>,
    capabilities: OnceLock<Capabilities>,
    cpuid: OnceLock<Box<[CpuidEntry]>>,
}

impl Kvm {
    /// Opens the device, close-on-exec, and checks that it is KVM.
    ///
    /// # Errors
    /// [`Error::KvmUnavailable`] with its cause and a remedy; [`Error::InvalidArgument`] for a path that is empty or has
    /// a zero byte.
    pub fn open(options: KvmOptions) -> Result<Self> {
        let path = options.path.unwrap_or_else(|| DEVICE.into());
        let device = open_device(&path)?;
        let open =
            Open { device, path, hide: options.hide.into(), capabilities: OnceLock::new(), cpuid: OnceLock::new() };
        Ok(Self { open: Arc::new(open) })
    }

    /// The device that was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.open.path
    }

    /// The capabilities treated as absent.
    #[must_use]
    pub fn hidden(&self) -> &[Capability] {
        &self.open.hide
    }

    /// What the device answers for the best VM it could make; asked at the first call (about 250 ioctls), then kept.
    #[must_use]
    pub fn capabilities(&self) -> &Capabilities {
        self.open.capabilities.get_or_init(|| Capabilities::probe(&self.open.device, &self.open.hide))
    }

    /// The value of one capability, without asking for all of them; 0 where it is missing or hidden.
    #[must_use]
    pub fn capability(&self, capability: Capability) -> i32 {
        self.open.capabilities.get().map_or_else(
            || ask(&self.open.device, capability, &self.open.hide),
            |capabilities| capabilities.value(capability),
        )
    }

    /// The value of one capability, where there is one.
    ///
    /// # Errors
    /// [`Error::CapabilityMissing`], which names `needed_by` and the first kernel that has the capability.
    pub fn require(&self, capability: Capability, needed_by: &'static str) -> Result<i32> {
        require(self.capability(capability), capability, needed_by)
    }

    /// What `vm` answers for `capability`; hidden ones read 0 there too.
    #[must_use]
    pub fn vm_capability(&self, vm: &VmFd, capability: Capability) -> i32 {
        ask(vm, capability, &self.open.hide)
    }

    /// What `vm` answers for every capability: the answer that counts. Hidden ones read 0.
    #[must_use]
    pub fn vm_capabilities(&self, vm: &VmFd) -> Capabilities {
        Capabilities::probe_vm(vm, &self.open.hide)
    }

    /// Size of the mapping that each vCPU shares with us, in bytes (`KVM_GET_VCPU_MMAP_SIZE`, api.rst 4.5).
    ///
    /// # Errors
    /// [`Error::Ioctl`] where KVM refuses.
    pub fn vcpu_mmap_size(&self) -> Result<usize> {
        self.open.device.get_vcpu_mmap_size().map_err(Error::ioctl("KVM_GET_VCPU_MMAP_SIZE"))
    }

    /// What processor and KVM can show to a guest by CPUID, which is what a vCPU has for which nothing else is chosen but for
    /// the APIC ids: those here are of whichever processor answered. `KVM_GET_SUPPORTED_CPUID`, api.rst 4.46; asked once.
    ///
    /// # Errors
    /// [`Error::CapabilityMissing`] without `KVM_CAP_EXT_CPUID`, which every KVM on `x86_64` has and none elsewhere;
    /// [`Error::Ioctl`].
    ///
    /// ```no_run
    /// use typevisor::{Kvm, Vm, VmOptions, vcpu::VcpuOptions};
    /// let kvm = Kvm::open(Default::default())?;
    /// let mut cpuid = kvm.supported_cpuid()?.to_vec();
    /// cpuid.retain(|entry| entry.function < 0x4000_0000 || entry.function >= 0x8000_0000); // no word of KVM
    /// let vm = Vm::create(&kvm, &VmOptions::default())?;
    /// let vcpu = vm.create_vcpu(VcpuOptions { cpuid: Some(cpuid), ..Default::default() })?;
    /// # Ok::<(), typevisor::Error>(())
    /// ```
    pub fn supported_cpuid(&self) -> Result<&[CpuidEntry]> {
        self.require(Capability::ExtCpuid, "the CPUID that KVM supports")?;
        self.cpuid()
    }

    /// The same where nobody asks for a capability. The kernel executes about a hundred CPUID instructions for it, each a
    /// trap where the host is a guest itself.
    pub(crate) fn cpuid(&self) -> Result<&[CpuidEntry]> {
        if let Some(cpuid) = self.open.cpuid.get() {
            return Ok(cpuid);
        }
        let cpuid = ask_cpuid(&self.open.device)?;
        Ok(self.open.cpuid.get_or_init(|| cpuid))
    }

    /// What KVM can show to a guest by CPUID where it is to take its host for Hyper-V: leaves from 0x40000000 on, in the place of
    /// KVM's own there. `KVM_GET_SUPPORTED_HV_CPUID`, api.rst 4.118.
    ///
    /// # Errors
    /// [`Error::CapabilityMissing`] without `KVM_CAP_SYS_HYPERV_CPUID` (Linux 5.11, `x86_64`), [`Error::Ioctl`].
    ///
    /// ```no_run
    /// use typevisor::Kvm;
    /// let kvm = Kvm::open(Default::default())?;
    /// let features = kvm.supported_hyperv_cpuid()?.into_iter().find(|entry| entry.function == 0x4000_0003);
    /// println!("the reset register: {}", features.is_some_and(|features| features.eax & 1 << 7 != 0));
    /// # Ok::<(), typevisor::Error>(())
    /// ```
    pub fn supported_hyperv_cpuid(&self) -> Result<Vec<CpuidEntry>> {
        self.require(Capability::SysHypervCpuid, "the CPUID of Hyper-V that KVM supports")?;
        ask_hyperv_cpuid(&self.open.device)
    }

    /// Makes a VM of `vm_type` (0: the default type; on aarch64 bits 7 to 0 are the width of guest addresses).
    ///
    /// # Errors
    /// [`Error::Limit`] where no descriptor is left. [`Error::Ioctl`] with `KVM_CREATE_VM`: `EINVAL` for an unknown type, `EBUSY` where another hypervisor holds
    /// the processor, `ENOMEM`.
    pub fn create_vm(&self, vm_type: u64) -> Result<VmFd> {
        let mut attempt = 1;
        loop {
            match self.open.device.create_vm_with_type(vm_type) {
                Err(error) if error.errno() == libc::EINTR && attempt < CREATE_VM_ATTEMPTS => {
                    attempt += 1;
                }
                result => return result.map_err(|error| Error::creation("KVM_CREATE_VM", error.into())),
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn ask_cpuid(device: &kvm_ioctls::Kvm) -> Result<Box<[CpuidEntry]>> {
    let cpuid = device.get_supported_cpuid(kvm_bindings::KVM_MAX_CPUID_ENTRIES);
    let cpuid = cpuid.map_err(Error::ioctl("KVM_GET_SUPPORTED_CPUID"))?;
    Ok(cpuid.as_slice().iter().map(CpuidEntry::from).collect())
}

#[cfg(target_arch = "x86_64")]
fn ask_hyperv_cpuid(device: &kvm_ioctls::Kvm) -> Result<Vec<CpuidEntry>> {
    Ok(crate::sys::cpuid::supported_hyperv_cpuid(device)?.as_slice().iter().map(CpuidEntry::from).collect())
}

/// Not reached: no KVM of this architecture has the capability.
#[cfg(not(target_arch = "x86_64"))]
fn ask_cpuid(_device: &kvm_ioctls::Kvm) -> Result<Box<[CpuidEntry]>> {
    require(0, Capability::ExtCpuid, "the CPUID that KVM supports").map(|_| Box::default())
}

/// Not reached either.
#[cfg(not(target_arch = "x86_64"))]
fn ask_hyperv_cpuid(_device: &kvm_ioctls::Kvm) -> Result<Vec<CpuidEntry>> {
    require(0, Capability::SysHypervCpuid, "the CPUID of Hyper-V that KVM supports").map(|_| Vec::new())
}

fn open_device(path: &Path) -> Result<kvm_ioctls::Kvm> {
    if path.as_os_str().is_empty() {
        return Err(Error::InvalidArgument { what: "path", expected: "the name of KVM's device, not empty" });
    }
    let name = CString::new(path.as_os_str().as_bytes())
        .map_err(|_| Error::InvalidArgument { what: "path", expected: "a file name without zero bytes" })?;
    let device = kvm_ioctls::Kvm::new_with_path(&name).map_err(|error| {
        unavailable(Unavailable::from_open(path, error.into(), DeviceNode::read(path), &Machine::read()))
    })?;
    let version = match device.get_api_version() {
        answer if answer < 0 => Err(Errno::last()),
        answer => Ok(answer),
    };
    match version {
        Ok(super::unavailable::API_VERSION) => Ok(device),
        answer => Err(Unavailable::from_version(path, answer, &Machine::read())
            .map_or(Error::Ioctl { request: "KVM_GET_API_VERSION", errno: Errno(libc::EINVAL) }, unavailable)),
    }
}

fn unavailable(reason: Unavailable) -> Error {
    Error::KvmUnavailable { reason: Box::new(reason) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Cause;

    fn cause_of(path: &str) -> Cause {
        match Kvm::open(KvmOptions { path: Some(path.into()), hide: Vec::new() }) {
            Err(Error::KvmUnavailable { reason }) => reason.cause().clone(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_empty_path_is_an_argument_and_no_device() {
        let error = Kvm::open(KvmOptions { path: Some(PathBuf::new()), hide: Vec::new() }).unwrap_err();
        assert_eq!(error.to_string(), "path must be the name of KVM's device, not empty");
    }

    #[test]
    fn a_file_that_is_not_kvm_is_told_from_one_that_is_not_there() {
        assert_eq!(cause_of("/dev/null"), Cause::NotKvm);
        assert_eq!(cause_of("/"), Cause::NotKvm);
        assert!(!matches!(cause_of("/no/such/device"), Cause::NotKvm | Cause::Refused));
    }

    #[test]
    fn a_path_with_a_zero_byte_is_an_argument_error() {
        let result = Kvm::open(KvmOptions { path: Some("/dev/kvm\0".into()), hide: Vec::new() });
        assert!(matches!(result, Err(Error::InvalidArgument { what: "path", .. })));
    }
}
