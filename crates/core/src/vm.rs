//! One VM: puts the rooms together and decides who outlives whom. Slots are `memory`'s, runs `vcpu`'s, accesses `bus`'s.

mod stats;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::Builder,
};

use kvm_ioctls::{VcpuFd, VmFd};

#[cfg(feature = "test-hooks")]
use crate::memory::{Held, HoldOut};
use crate::{
    bus::{Bus, BusFeatures, is_drainer_thread},
    control::{ControlThread, is_control_thread},
    error::{Error, Result},
    exit::{Abi, Arch},
    host::{Capabilities, Capability, Kvm},
    loader::{FirmwareLayout, load_firmware},
    memory::{GuestMemory, SlotFeatures},
    panics::Panics,
    stats::Source,
    switches::ExitSwitches,
    sys::{fork, limits, signal::KickSignal},
    vcpu::{self, Choice, Hold, Placement, Vcpu, VcpuFeatures, VcpuOptions, arch},
};

/// Options of [`Vm::create`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VmOptions {
    /// In-kernel interrupt controllers (x86: PIC, I/O APIC, local APICs; and the TSS and identity map that older Intel
    /// processors need, at the four pages below 4 GiB - 16 MiB, where no slot may lie then).
    pub irqchip: bool,
    /// Measure how long vCPUs are in the guest, and how long their exits take ([`crate::stats::ExitTimes`]): the clock is read
    /// twice an entry.
    pub timing: bool,
    /// Exits beyond those of every VM, and exits that it does without.
    pub exits: ExitSwitches,
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
    timing: bool,
    irqchip: bool,
    memory: GuestMemory,
    bus: Bus,
    /// By which `memory` keeps the vCPUs out of the guest.
    hold: Arc<Hold>,
    control: ControlThread,
    generation: u32,
    state: Mutex<State>,
}

struct State {
    /// None once closed: the fd is one of the things that keep a VM alive.
    fd: Option<Arc<VmFd>>,
    /// As long, of KVM's statistics, and opened by the first who asks.
    source: Option<Source>,
    /// As long, for creating vCPUs.
    kvm: Option<Kvm>,
    /// Every id that KVM has; none where the vCPU could not be made whole.
    vcpus: BTreeMap<u32, Option<Arc<vcpu::Shared>>>,
    /// aarch64: what the first vCPU was made with, and with it all of them.
    features: Option<VcpuFeatures>,
    /// A thread is closing the VM on behalf of one that cannot wait.
    closes_elsewhere: bool,
}

impl Vm {
    /// Creates a VM without memory or vCPUs.
    ///
    /// # Errors
    /// [`Error::Ioctl`] where KVM refuses, [`Error::CapabilityMissing`] without `KVM_CAP_IMMEDIATE_EXIT` (Linux 4.11) and,
    /// as [`Error::CapabilityPart`], for exits that this VM has not; [`Error::InvalidArgument`] and [`Error::Element`] for
    /// those that make no sense, before KVM is told of any.
    pub fn create(kvm: &Kvm, options: &VmOptions) -> Result<Self> {
        let fd = Arc::new(kvm.create_vm(arch::vm_type(kvm))?);
        let capabilities = kvm.vm_capabilities(&fd);
        capabilities.require(Capability::ImmediateExit, "a vCPU that can be kicked")?;
        options.exits.plan(&capabilities)?.apply(&fd)?;
        if options.irqchip {
            arch::create_irqchip(&fd)?;
        }
        let bus = Bus::new(Arc::clone(&fd), BusFeatures::of(&capabilities, options.irqchip));
        let hold = Arc::new(Hold::default());
        let vcpus = Arc::<Hold>::clone(&hold);
        let memory = GuestMemory::new(Arc::clone(&fd), slot_features(kvm, &capabilities, options.irqchip), vcpus);
        let (kvm, vcpus) = (Some(kvm.clone()), BTreeMap::new());
        let (fd, source, features) = (Some(fd), None, None);
        let state = Mutex::new(State { fd, source, kvm, vcpus, features, closes_elsewhere: false });
        let generation = fork::generation();
        let control = ControlThread::new();
        let &VmOptions { timing, irqchip, .. } = options;
        let shared = VmShared { capabilities, timing, irqchip, memory, bus, hold, control, generation, state };
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

    /// The thread for what may take long; see [`ControlThread::submit`].
    #[must_use]
    pub fn control(&self) -> &ControlThread {
        &self.shared.control
    }

    /// Adds a vCPU; on x86 with the CPUID that was chosen, or that KVM supports here, on aarch64 one of the host's own kind with the
    /// features chosen: none chosen, those of the VM's first vCPU (but for [`vcpu::VcpuFeature::PowerOff`]), which itself
    /// gets PSCI 0.2. All vCPUs of a VM have the same, as newer kernels demand it.
    ///
    /// # Errors
    /// [`Error::CapabilityMissing`] for a feature that this VM cannot give, [`Error::InvalidArgument`] for any on x86, for a
    /// CPUID on aarch64 or one that is too long, and
    /// for another set than that of the VM's first vCPU, for a name or affinity that no thread has, [`Error::Element`] for an
    /// entry of CPUID that no guest would see, [`Error::CpuNotAllowed`]: all before KVM makes one, so that the id stays free.
    /// [`Error::VcpuIdTaken`] (also by a closed vCPU: KVM keeps it), [`Error::VcpuIdRange`], [`Error::Limit`] where no
    /// descriptor or mapping is left, [`Error::KickSignalTaken`], [`Error::Closed`], [`Error::Ioctl`]. A vCPU that KVM
    /// made and that could not be set up costs its id.
    pub fn create_vcpu(&self, options: VcpuOptions) -> Result<Vcpu> {
        let shared = &self.shared;
        let VcpuOptions { id, features, cpuid, hyperv_synic: synic, affinity, name } = options;
        let placement = Placement::new(name, affinity.as_deref())?;
        let mut state = shared.state()?;
        let (Some(vm), Some(kvm)) = (state.fd.clone(), state.kvm.clone()) else {
            return Err(Error::Closed { what: "VM" });
        };
        let limit = u32::try_from(shared.capabilities.value(Capability::MaxVcpuId)).unwrap_or(0).max(1);
        // What can fail without KVM comes first: it keeps a vCPU that it has made.
        let model = arch::check_model(Choice { features, cpuid, synic }, state.features, &shared.capabilities)?;
        if synic && !shared.irqchip {
            let expected = "false in a VM without an irqchip: it is a part of the local APIC";
            return Err(Error::InvalidArgument { what: "hyperv.synic", expected });
        }
        let (signal, run_size) = (KickSignal::get()?, kvm.vcpu_mmap_size()?);
        let (id, fd) = make_vcpu(&mut state.vcpus, &vm, id, limit)?;
        let setup = arch::initialise(&kvm, &vm, &fd, id, model, &mut state.features)?;
        let (bus, hold) = (shared.bus.clone(), Arc::clone(&shared.hold));
        let (counts, timing) = (shared.capabilities.has(Capability::BinaryStatsFd), shared.timing);
        let abi = shared.abi();
        let machine = vcpu::Machine { vm, bus, abi, setup, run_size, signal, counts, timing, hold, placement };
        let vcpu = vcpu::Shared::new(id, fd, machine)?;
        state.vcpus.insert(id, Some(Arc::clone(&vcpu)));
        let keep = Arc::clone(shared);
        Ok(Vcpu::new(vcpu, &shared.memory, keep))
    }

    /// Puts an x86 firmware image where the reset vector finds it: read-only below 4 GiB, and a copy of its end below
    /// 1 MiB, where RAM has to be mapped.
    ///
    /// # Errors
    /// [`Error::GuestImage`], [`Error::FirmwareRam`], those of [`GuestMemory::map`].
    pub fn load_firmware(&self, image: &[u8]) -> Result<FirmwareLayout> {
        load_firmware(&self.shared.memory, image)
    }

    /// Brings every vCPU out of `KVM_RUN`, whichever thread runs it, and keeps it out until [`Vm::resume`]. `paused` is called
    /// once none is inside: at once, on this thread, or on that of the vCPU that came out last; it must not wait for a vCPU.
    /// Guest memory does not change by a guest from then on. (KVM itself may still write to it, as a kernel's clock page.)
    ///
    /// No run ends by it: those under way wait, and so do those that begin, until a kick, a cancellation, a limit or a close
    /// ends them as ever, or they go on. Settling waits too. Memory can be changed meanwhile. A VM that is paused already
    /// stays so. May be called from a device, whose vCPU is not in `KVM_RUN`. It takes long where a vCPU sleeps in a
    /// missing page.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Forked`]; `paused` is not called then. It gets [`Error::Closed`] where the VM closes
    /// before it is paused.
    ///
    /// ```no_run
    /// use typevisor::{Kvm, Vm, VmOptions};
    /// let vm = Vm::create(&Kvm::open(Default::default())?, &VmOptions::default())?;
    /// let (tell, told) = std::sync::mpsc::channel();
    /// vm.pause(move |outcome| drop(tell.send(outcome)))?;
    /// assert!(matches!(told.recv(), Ok(Ok(())))); // no vCPU is in the guest
    /// vm.resume()?;
    /// # Ok::<(), typevisor::Error>(())
    /// ```
    pub fn pause(&self, paused: impl FnOnce(Result<()>) + Send + 'static) -> Result<()> {
        self.shared.hold.pause(Box::new(paused))
    }

    /// Lets the vCPUs go on, as soon as those who wait for the pause have been told of it. Harmless where the VM is not
    /// paused.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Forked`].
    pub fn resume(&self) -> Result<()> {
        self.shared.hold.resume()
    }

    /// The first half of [`Vm::close`], which does not wait: every run is stopped, and from now on neither a run nor a job
    /// of the control thread begins. For a thread that leaves the rest to another.
    pub fn begin_close(&self) {
        let Ok(state) = self.shared.state() else { return };
        let vcpus: Vec<_> = state.vcpus.values().flatten().cloned().collect();
        drop(state);
        for vcpu in vcpus {
            vcpu.request_close();
        }
        self.shared.hold.end_pauses();
        self.shared.control.begin_close();
    }

    #[cfg(feature = "test-hooks")]
    pub(crate) fn hold(&self) -> Box<dyn Held + '_> {
        self.shared.hold.hold()
    }

    /// Stops every vCPU, joins their threads, deletes the slots and unmaps the memory. Twice is harmless, and every
    /// caller finds it done, whoever else is at it. From inside a run (in a device, in a callback of [`Vcpu::start`]) it
    /// returns at once, and the rest happens when that call has returned. A job of a control thread, a reader that is
    /// woken (of this VM or of another), and what is dropped with a buffer's `keep` find the slots deleted, and perhaps
    /// neither everything unmapped nor this VM's own job at its end: others may be waiting for them. Where code of a program's panics (a buffer's `keep`,
    /// a reader that is woken), everything is done first, and then the first panic goes on.
    ///
    /// Jobs that the control thread has not begun are dropped. The one that it is at is waited for, as it may use what is
    /// closed here: for a read, write or fill that is the copying (about a second for 10 GB), for a search the 256 KiB that
    /// it is at, for a change of slots its ioctls, and for whatever else the job does as long as that takes (opening a file: what the file system needs).
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
    fn state(&self) -> Result<MutexGuard<'_, State>> {
        if self.generation != fork::generation() {
            return Err(Error::Forked);
        }
        Ok(self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn abi(&self) -> Abi {
        Abi { arch: Arch::HOST, system_event_data: self.capabilities.has(Capability::SystemEventData) }
    }

    fn close(self: &Arc<Self>) {
        // A forked child has neither the threads nor the memory, and its copies of the fds go with it.
        let Ok(mut state) = self.state() else { return };
        let (source, fd, kvm) = (state.source.take(), state.fd.take(), state.kvm.take());
        // They stay listed: whoever closes meanwhile waits for them too.
        let vcpus: Vec<_> = state.vcpus.values().flatten().cloned().collect();
        let elsewhere = vcpu::is_driving() && !std::mem::replace(&mut state.closes_elsewhere, vcpu::is_driving());
        drop(state);
        // All are kicked before the first is waited for.
        for vcpu in &vcpus {
            vcpu.request_close();
        }
        self.hold.end_pauses();
        self.control.begin_close(); // else the memory would wait behind changes that nobody wants any more
        if elsewhere {
            self.close_elsewhere();
        }
        if vcpu::is_driving() {
            return;
        }
        // A panic is one of the program's own, as of what keeps a buffer or of who is woken: it must not keep the rest.
        let mut panics = Panics::default();
        for vcpu in &vcpus {
            panics.catch(|| vcpu.close());
        }
        panics.catch(|| self.bus.close());
        // Before the control thread ends: the job it is at finds the memory closed.
        panics.catch(|| self.memory.close());
        panics.catch(|| self.await_others());
        if let Ok(mut state) = self.state() {
            state.vcpus.clear();
        }
        drop((source, fd, kvm, vcpus));
        panics.resume();
    }

    /// Waits for the control thread, and for whoever lets go of the memory. A thread that others wait for here or in
    /// `bus.close()`, whichever VM it is of, does not wait for them: a job and what wakes a reader for nobody, a buffer's
    /// keep ([`GuestMemory::await_release`]) for no other's.
    fn await_others(&self) {
        if is_drainer_thread() || is_control_thread() {
            return;
        }
        self.control.close();
        self.memory.await_release();
    }

    /// For a thread that is inside a run and cannot wait for itself.
    fn close_elsewhere(self: &Arc<Self>) {
        let shared = Arc::clone(self);
        let spawn = || Builder::new().name("kvm-close".into()).spawn(move || shared.close());
        // Without a thread it is left to the VM's drop, or to the next who closes.
        let _left = KickSignal::with_all_blocked(spawn);
    }
}

impl std::fmt::Debug for VmShared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VmShared").finish_non_exhaustive()
    }
}

/// How many slots there are where KVM does not say, as when the question is hidden: what other VMMs take for the default
/// as well, and no KVM since Linux 5.10 has fewer.
const SLOTS_UNTOLD: u32 = 32;

fn slot_features(kvm: &Kvm, capabilities: &Capabilities, irqchip: bool) -> SlotFeatures {
    let value = |capability| u32::try_from(capabilities.value(capability)).unwrap_or(0);
    SlotFeatures {
        slots: match value(Capability::NrMemslots) {
            0 => SLOTS_UNTOLD,
            slots => slots,
        },
        spaces: value(Capability::MultiAddressSpace).max(1),
        address_bits: arch::address_bits(kvm),
        readonly: capabilities.has(Capability::ReadonlyMem),
        region2: capabilities.has(Capability::UserMemory2),
        page_size: limits::page_size(),
        reserved: if irqchip { arch::irqchip_pages() } else { None },
        guest_memfd: capabilities
            .has(Capability::GuestMemfd)
            .then(|| u64::try_from(capabilities.value(Capability::GuestMemfdFlags)).unwrap_or(0)),
    }
}

type Vcpus = BTreeMap<u32, Option<Arc<vcpu::Shared>>>;

/// Makes a vCPU and takes its id, for good: whatever fails later, KVM keeps it.
fn make_vcpu(vcpus: &mut Vcpus, vm: &VmFd, wanted: Option<u32>, limit: u32) -> Result<(u32, VcpuFd)> {
    loop {
        let id = match wanted {
            Some(id) => id,
            None => (0..limit).find(|id| !vcpus.contains_key(id)).unwrap_or(limit),
        };
        if id >= limit {
            return Err(Error::VcpuIdRange { id, limit });
        }
        if vcpus.contains_key(&id) {
            return Err(Error::VcpuIdTaken { id });
        }
        match vm.create_vcpu(u64::from(id)) {
            Ok(fd) => {
                vcpus.insert(id, None);
                return Ok((id, fd));
            }
            // kvm-ioctls gave up after KVM had made it: no mapping was left.
            Err(error) if error.errno() == libc::EEXIST => {
                vcpus.insert(id, None);
            }
            Err(error) => return Err(Error::creation("KVM_CREATE_VCPU", error.into())),
        }
    }
}
