//! One VM: puts the rooms together and decides who outlives whom. Slots are `memory`'s, runs `vcpu`'s, accesses `bus`'s.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use kvm_ioctls::VmFd;

use crate::{
    bus::Bus,
    error::{Error, Result},
    host::{Capabilities, Capability, Kvm},
    loader::{FirmwareLayout, load_firmware},
    memory::{GuestMemory, SlotFeatures},
    sys::fork,
    vcpu::{self, Vcpu, VcpuOptions, arch},
};

/// `KVM_CREATE_VM`'s argument for the ordinary kind of VM.
const DEFAULT_TYPE: u64 = 0;

/// Options of [`Vm::create`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VmOptions {
    /// In-kernel interrupt controllers (x86: PIC, I/O APIC, local APICs; and the TSS and identity map that older Intel
    /// processors need, at the four pages below 4 GiB - 16 MiB).
    pub irqchip: bool,
}

/// A virtual machine. Dropping it closes it.
///
/// ```no_run
/// use typevisor::{Kvm, Vm, VmOptions};
/// let vm = Vm::create(&Kvm::open(Default::default())?, &VmOptions::default())?;
/// assert!(vm.memory().slots()?.is_empty());
/// # Ok::<(), typevisor::Error>(())
/// ```
#[derive(Debug)]
pub struct Vm {
    shared: Arc<VmShared>,
}

/// What the VM and its vCPUs' handles share: the VM lives as long as one of them.
pub(crate) struct VmShared {
    capabilities: Capabilities,
    memory: GuestMemory,
    bus: Bus,
    generation: u32,
    state: Mutex<State>,
}

struct State {
    /// None once closed: the fd is one of the things that keep a VM alive.
    fd: Option<Arc<VmFd>>,
    /// As long, for creating vCPUs.
    kvm: Option<Kvm>,
    vcpus: BTreeMap<u32, Arc<vcpu::Shared>>,
}

impl Vm {
    /// Creates a VM without memory or vCPUs.
    ///
    /// # Errors
    /// [`Error::Ioctl`] where KVM refuses, [`Error::CapabilityMissing`] without `KVM_CAP_IMMEDIATE_EXIT` (Linux 4.11).
    pub fn create(kvm: &Kvm, options: &VmOptions) -> Result<Self> {
        let fd = Arc::new(kvm.create_vm(DEFAULT_TYPE)?);
        let capabilities = kvm.vm_capabilities(&fd);
        capabilities.require(Capability::ImmediateExit, "a vCPU that can be kicked")?;
        if options.irqchip {
            arch::create_irqchip(&fd)?;
        }
        let features = SlotFeatures {
            slots: u32::try_from(capabilities.value(Capability::NrMemslots)).unwrap_or(0),
            readonly: capabilities.has(Capability::ReadonlyMem),
            region2: capabilities.has(Capability::UserMemory2),
        };
        let memory = GuestMemory::new(Arc::clone(&fd), features);
        let state = Mutex::new(State { fd: Some(fd), kvm: Some(kvm.clone()), vcpus: BTreeMap::new() });
        let generation = fork::generation();
        let shared = VmShared { capabilities, memory, bus: Bus::default(), generation, state };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// What this VM can do: its answer counts, not that of `/dev/kvm`, which speaks for the best VM it could make.
    #[must_use]
    pub fn capabilities(&self) -> &Capabilities {
        &self.shared.capabilities
    }

    /// The VM's memory.
    #[must_use]
    pub fn memory(&self) -> &GuestMemory {
        &self.shared.memory
    }

    /// Who answers ports and MMIO in Rust.
    #[must_use]
    pub fn bus(&self) -> &Bus {
        &self.shared.bus
    }

    /// Adds a vCPU; on x86 with the CPUID that KVM supports here, on aarch64 with the host's own processor and PSCI 0.2.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where the id is taken (also by a closed vCPU: KVM keeps it) or too high,
    /// [`Error::Closed`], [`Error::Ioctl`].
    pub fn create_vcpu(&self, options: VcpuOptions) -> Result<Vcpu> {
        let shared = &self.shared;
        let mut state = shared.state()?;
        let (Some(vm), Some(kvm)) = (state.fd.clone(), state.kvm.clone()) else {
            return Err(Error::Closed { what: "VM" });
        };
        let id = choose_id(&state, options.id)?;
        let limit = u32::try_from(shared.capabilities.value(Capability::MaxVcpuId)).unwrap_or(0);
        if id >= limit.max(1) {
            return Err(Error::InvalidArgument { what: "id", expected: "below the VM's max-vcpu-id" });
        }
        let fd = vm.create_vcpu(u64::from(id)).map_err(Error::ioctl("KVM_CREATE_VCPU"))?;
        arch::initialise(&kvm, &vm, &fd, id)?;
        let vcpu = vcpu::Shared::new(id, fd, vm, shared.bus.clone(), kvm.vcpu_mmap_size()?)?;
        state.vcpus.insert(id, Arc::clone(&vcpu));
        Ok(Vcpu::new(vcpu, Arc::clone(shared)))
    }

    /// Puts an x86 firmware image where the reset vector finds it: read-only below 4 GiB, and a copy of its end below
    /// 1 MiB, where RAM has to be mapped.
    ///
    /// # Errors
    /// [`Error::GuestImage`], [`Error::FirmwareRam`], those of [`GuestMemory::map`].
    pub fn load_firmware(&self, image: &[u8]) -> Result<FirmwareLayout> {
        load_firmware(&self.shared.memory, image)
    }

    /// Stops every vCPU, joins their threads, deletes the slots and unmaps the memory. Bounded; twice is harmless.
    pub fn close(&self) {
        self.shared.close();
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl VmShared {
    #[cfg(target_arch = "x86_64")]
    pub(crate) const fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    fn state(&self) -> Result<MutexGuard<'_, State>> {
        if self.generation != fork::generation() {
            return Err(Error::Forked);
        }
        Ok(self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn close(&self) {
        // A forked child has neither the threads nor the memory, and its copies of the fds go with it.
        let Ok(mut state) = self.state() else { return };
        let (fd, kvm) = (state.fd.take(), state.kvm.take());
        let vcpus = std::mem::take(&mut state.vcpus);
        drop(state);
        // All are kicked before the first is waited for.
        for vcpu in vcpus.values() {
            vcpu.request_close();
        }
        for vcpu in vcpus.values() {
            vcpu.close();
        }
        self.memory.close();
        drop((fd, kvm));
    }
}

impl std::fmt::Debug for VmShared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VmShared").finish_non_exhaustive()
    }
}

fn choose_id(state: &State, wanted: Option<u32>) -> Result<u32> {
    match wanted {
        Some(id) if state.vcpus.contains_key(&id) => {
            Err(Error::InvalidArgument { what: "id", expected: "one that no vCPU of this VM has had" })
        }
        Some(id) => Ok(id),
        None => Ok((0..u32::MAX).find(|id| !state.vcpus.contains_key(id)).unwrap_or(u32::MAX)),
    }
}
