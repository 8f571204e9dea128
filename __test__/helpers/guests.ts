/**
 * Tiny guests for either processor, and the machine they run in: 64 KiB of RAM from 0, code at 0x1000; x86 in real mode,
 * aarch64 at EL1 with the host's tables. Guests are made of pieces of code with no addresses in them. They have one register
 * for bytes (al, w0) and devices at ports: I/O ports of x86, bytes of memory-mapped I/O from 0x9_0000 on of aarch64.
 */

import {
  type Answer,
  type BusDevice,
  debugConsole,
  type Device,
  type Exit,
  type Handlers,
  type IoExit,
  KiB,
  type MmioExit,
  type PostedClaim,
  type PostedDevice,
  type Vcpu,
  Vm,
} from '../../ts/index.ts';

/** Bytes of machine code that can stand anywhere. */
export type Code = readonly number[];

/** Where code begins. */
export const ENTRY = 0x1000;
/** Where guests leave a byte to be looked at, by `mark`. */
export const MARK = 0x2000;

const ARM = process.arch === 'arm64';
/** Where aarch64's ports are: nothing else is there. */
const PORTS = 0x9_0000;
const ASK_PORT = 0x60;
/** The port of the console, where `CHATTER` writes. */
export const CONSOLE = 0x42;
/** The port by which a guest of aarch64 says that it has come to its end. */
const STOP_PORT = 0xf4;

/** jmp $ · b . */
export const SPIN: Code = ARM ? words(0x1400_0000) : [0xeb, 0xfe];
/** The end of a guest, which can be run on: hlt · mov x1, port; strb wzr, [x1] */
export const STOP: Code = ARM ? words(...portIn(STOP_PORT), 0x3900_003f) : [0xf4];
/** inc al · add w0, w0, 1 */
export const INCREMENT: Code = ARM ? words(0x1100_0400) : [0xfe, 0xc0];

/** mov al, value · movz w0, value */
export function set(value: number): Code {
  return ARM ? words(0x5280_0000 | (value << 5)) : [0xb0, value];
}

/** in al, port · mov x1, port; ldrb w0, [x1] */
export function get(port: number): Code {
  return ARM ? words(...portIn(port), 0x3940_0020) : [0xe4, port];
}

/** out port, al, or mov dx, port; out dx, al · mov x1, port; strb w0, [x1] */
export function put(port: number): Code {
  if (ARM) return words(...portIn(port), 0x3900_0020);
  return port < 0x100 ? [0xe6, port] : [0xba, port & 0xff, port >> 8, 0xee];
}

/** mov ds, …; mov [gpa], al · mov x1, gpa; strb w0, [x1] */
export function mark(gpa: number = MARK): Code {
  return ARM ? words(...addressIn(gpa), 0x3900_0020) : [...segmentOf(gpa), 0xa2, gpa & 0xff, (gpa >> 8) & 0xff];
}

/** mov ds, …; mov al, [gpa] · mov x1, gpa; ldrb w0, [x1] */
export function load(gpa: number): Code {
  return ARM ? words(...addressIn(gpa), 0x3940_0020) : [...segmentOf(gpa), 0xa0, gpa & 0xff, (gpa >> 8) & 0xff];
}

/** A call of PSCI or another service of the hypervisor, on aarch64: movz w0, low; movk w0, high, lsl 16; hvc 0 */
export function hypervisorCall(number: number): Code {
  const [low, high] = [number & 0xffff, number >>> 16];
  return words(0x5280_0000 | (low << 5), 0x72a0_0000 | (high << 5), 0xd400_0002);
}

/** Again and again: jmp · b */
export function forever(...pieces: readonly Code[]): Code {
  const code = pieces.flat();
  if (ARM) return [...code, ...words(0x1400_0000 | (-(code.length / 4) & 0x3ff_ffff))];
  return [...code, 0xeb, -(code.length + 2) & 0xff];
}

/** Where `counting` counts: a page to be mapped, in the 64 KiB from 0x8_0000 on, as x86 has one segment for them. */
export const COUNT = 0x8_8000;

/** Again and again the pieces, and a count of how often: of accesses to the 64 KiB from 0x8_0000 on, and nothing else. */
export function counting(...pieces: readonly Code[]): Code {
  return forever(...pieces, load(COUNT), INCREMENT, mark(COUNT));
}

/** Waits on this thread until it has counted on: the guest runs. */
export function untilItCounts({ memory }: Vm): void {
  const before = memory.getUint8(COUNT);
  for (const end = Date.now() + 60_000; Date.now() < end;) if (memory.getUint8(COUNT) !== before) return;
  throw new Error('the guest has not counted for a minute');
}

/** So many times, up to 65,535: mov cx, count; …; loop · movz w3, count; …; subs w3, w3, 1; b.ne */
export function times(count: number, ...pieces: readonly Code[]): Code {
  const code = pieces.flat();
  if (!ARM) return [0xb9, count & 0xff, count >> 8, ...code, 0xe2, -(code.length + 2) & 0xff];
  const back = (-(code.length / 4 + 1) & 0x7_ffff) << 5;
  return [...words(0x5280_0003 | (count << 5)), ...code, ...words(0x7100_0463, 0x5400_0001 | back)];
}

/** Writes each byte of a text to a port, and stops. */
export function printer(port: number, text: string): Code {
  return [...Array.from(new TextEncoder().encode(text), byte => [...set(byte), ...put(port)]).flat(), ...STOP];
}

/** Reads a port, and stops. */
export const ASK: Code = [...get(ASK_PORT), ...STOP];
/** Writes to the console for ever. */
export const CHATTER: Code = [...set(0x78), ...forever(put(CONSOLE))];

/** The exit that a read of a port is. */
export function asked(port: number = ASK_PORT): Exit {
  if (ARM) return { kind: 'mmio', direction: 'read', gpa: PORTS + port, size: 1 };
  return { kind: 'io', direction: 'in', port, size: 1, count: 1 };
}

/** The exit that a write to a port is. */
export function told(port: number, value: number): Exit {
  const data = Uint8Array.of(value);
  if (ARM) return { kind: 'mmio', direction: 'write', gpa: PORTS + port, size: 1, data };
  return { kind: 'io', direction: 'out', port, size: 1, count: 1, data };
}

/** The exit that `STOP` is. */
export const STOPPED: Exit = ARM ? told(STOP_PORT, 0) : { kind: 'hlt' };
/** The kind of exit that an access of a port is. */
export const ACCESS: 'io' | 'mmio' = ARM ? 'mmio' : 'io';

type Reply<T> = T | 'stop' | undefined | void;

/** Handlers of what these guests do. */
export interface GuestHandlers {
  readonly access?: (exit: IoExit | MmioExit) => Reply<Answer> | PromiseLike<Reply<Answer>>;
  readonly stop?: () => Reply<never> | PromiseLike<Reply<never>>;
}

/** Handlers for `serve`: of accesses to ports and of `STOP`, which without one ends it. */
export function handlers({ access, stop }: GuestHandlers): Handlers {
  if (!ARM) return { io: access, hlt: stop };
  return {
    mmio(exit) {
      if (exit.gpa !== PORTS + STOP_PORT) return access?.(exit);
      return stop === undefined ? 'stop' : stop();
    },
  };
}

/** Claims a port. */
export function claim(vm: Vm, port: number, device: Device): Disposable;
export function claim(vm: Vm, port: number, device: PostedDevice): PostedClaim;
export function claim(vm: Vm, port: number, device: BusDevice): Disposable;
export function claim(vm: Vm, port: number, device: BusDevice): Disposable {
  return ARM ? vm.bus.mmio(PORTS + port, 1, device) : vm.bus.port(port, 1, device);
}

/** Gives the VM a console at that port; on aarch64, where consoles do not stand, a queue of posted writes in its place. */
export function attachConsole(vm: Vm, sink: (chunk: Uint8Array) => void): Disposable {
  if (!ARM) return claim(vm, CONSOLE, debugConsole(sink));
  return claim(vm, CONSOLE, { posted: writes => sink(Uint8Array.from(writes, ({ value }) => value)) });
}

/** What the byte register holds. */
export function byteOf(vcpu: Vcpu): number {
  const registers = vcpu.getRegisters();
  return Number(BigInt.asUintN(8, registers.arch === 'aarch64' ? registers.x0 : registers.rax));
}

/** Where the vCPU is. */
export function placeOf(vcpu: Vcpu): bigint {
  const registers = vcpu.getRegisters();
  return registers.arch === 'aarch64' ? registers.pc : registers.rip;
}

/** The name of the byte register. */
export const REGISTER: 'rax' | 'x0' = ARM ? 'x0' : 'rax';
/** The name of another register. */
export const OTHER_REGISTER: 'rbx' | 'x2' = ARM ? 'x2' : 'rbx';

/**
 * Lets the vCPU begin at the machine's code. On aarch64 with its MMU on: with it off, guest and host need not see each
 * other's writes. That takes a slot, and memory is what is mapped by now, in pieces of 2 MiB.
 */
export function start(vcpu: Vcpu): void {
  vcpu.boot({ mode: ARM ? 'el1' : 'real', entry: ENTRY });
}

/** A VM with one vCPU, and its end. */
export interface Machine extends Disposable {
  readonly vm: Vm;
  readonly vcpu: Vcpu;
}

/** A machine about to run the code. */
export function machine(...pieces: readonly Code[]): Machine {
  return machineIn(Vm.create(), ...pieces);
}

/** The same in a VM that is made already, and ends with it. */
export function machineIn(vm: Vm, ...pieces: readonly Code[]): Machine {
  vm.memory.map({ gpa: 0, size: 64 * KiB });
  vm.memory.write(ENTRY, Uint8Array.from(pieces.flat()));
  const vcpu = vm.createVcpu();
  start(vcpu);
  return { vm, vcpu, [Symbol.dispose]: () => vm.close() };
}

/** The ioctl that slots are made with here. */
export function slotIoctl(): string {
  using vm = Vm.create();
  return vm.capabilities.has('user-memory2') ? 'KVM_SET_USER_MEMORY_REGION2' : 'KVM_SET_USER_MEMORY_REGION';
}

/** Instructions of aarch64, little-endian. */
export function words(...all: readonly number[]): Code {
  return all.flatMap(word => [word & 0xff, (word >>> 8) & 0xff, (word >>> 16) & 0xff, word >>> 24]);
}

function portIn(port: number): readonly number[] {
  return addressIn(PORTS + port);
}

/** movz x1, low; movk x1, high, lsl 16 */
function addressIn(gpa: number): readonly number[] {
  return [0xd280_0001 | ((gpa & 0xffff) << 5), 0xf2a0_0001 | ((gpa >>> 16) << 5)];
}

/** mov bx, segment; mov ds, bx: for what is past the first 64 KiB of the first MiB; ds stays so. */
function segmentOf(gpa: number): Code {
  return gpa < 0x1_0000 ? [] : [0xbb, 0, (gpa >> 12) & 0xf0, 0x8e, 0xdb];
}
