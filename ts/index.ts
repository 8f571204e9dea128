/**
 * Typevisor: KVM for TypeScript. Table of contents of what users import.
 *
 * @module
 */

// The host
export { doctor, type DoctorCheck, type DoctorReport } from './doctor.ts';
export { Kvm, type KvmOptions } from './kvm.ts';
export { Capabilities, type Capability } from './capabilities.ts';
export type { CapabilityName } from './generated/capabilities.ts';
export type { CpuidEntry } from './cpuid.ts';

// Virtual machines
export { type Firmware, Vm, type VmOptions } from './vm.ts';
export type { HypervOptions, VcpuFeature, VcpuOptions } from './vcpu-options.ts';
export type {
  DisabledExit,
  ExitingHypercall,
  ExitSwitches,
  MsrExits,
  MsrFilterRange,
  NotifyWindow,
  XenHypercalls,
} from './exit-switches.ts';

// Memory
export { type GpaRange, GuestMemory } from './memory.ts';
export type { SearchOptions } from './search.ts';
export type { Backing, BufferBacking, FileBacking, HugetlbBacking, MapOptions, ShareBacking } from './backing.ts';
export type { MakeChanges, MemoryChange } from './change.ts';
export type { MemoryPromises } from './memory-promises.ts';
export { type BackingName, MemorySlot } from './slot.ts';
export { GiB, KiB, MiB } from './units.ts';

// vCPUs and their exits
export type { Boot, BootOptions } from './boot.ts';
export { type RunOptions, type RunSyncOptions, Vcpu } from './vcpu.ts';
export type { Answer } from './answer.ts';
export type { RunFlags } from './run-flags.ts';
export type { Handlers } from './serve.ts';
export type {
  DebugExit,
  DirtyRingFullExit,
  Exit,
  FailEntryExit,
  FaultCause,
  HltExit,
  HypercallExit,
  InternalErrorExit,
  InternalErrorName,
  IntrExit,
  IoExit,
  MemoryFaultExit,
  MmioExit,
  RunFailedExit,
  ShutdownExit,
  SystemEvent,
  SystemEventExit,
  UnknownExit,
} from './exit.ts';
export type {
  ApResetHoldExit,
  BusLockExit,
  ExceptionExit,
  HypervExit,
  IoapicEoiExit,
  IrqWindowOpenExit,
  MsrReason,
  NmiExit,
  NotifyExit,
  RdmsrExit,
  SetTprExit,
  SnpReqCertsExit,
  TdxExit,
  TprAccessExit,
  WrmsrExit,
  XenExit,
} from './exit-x86.ts';
export type { ArmLdst64bExit, ArmNisvExit, ArmSeaExit } from './exit-aarch64.ts';
export type {
  Aarch64Registers,
  DescriptorTable,
  Registers,
  RegistersUpdate,
  Segment,
  X86Registers,
  X86RegistersUpdate,
} from './registers.ts';

// The bus and its devices
export { Bus, type BusDevice, type UnclaimedOptions } from './bus.ts';
export type {
  Device,
  PostedClaim,
  PostedDevice,
  PostedStats,
  PostedWrite,
  ProgramDevice,
  WideDevice,
} from './device.ts';
export { type ConsoleSink, type DebugConsole, debugConsole, type SerialConsole, serialConsole } from './console.ts';
export { type Eventfd, eventfd, type EventfdOptions, type Latch, latch } from './small-devices.ts';

// Observing
export type { ByExitKind, ExitTime, KvmStat, KvmStatUnit, Stats } from './stats.ts';
export type { ExitMessage, IoctlMessage, VmMessage } from './observe.ts';

// Errors
export { type ErrorCode, type ErrorDetails, TypevisorError } from './errors.ts';
