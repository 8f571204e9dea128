/** The machines that `typevisor` runs guests on (x86_64). */

import { type ConsoleSink, debugConsole, serialConsole } from '../console.ts';
import { MiB } from '../units.ts';
import type { BootOptions } from '../boot.ts';
import type { Vcpu } from '../vcpu.ts';
import { Vm } from '../vm.ts';

/** A VM with its one vCPU; ended by `using`. */
export interface Machine extends Disposable {
  readonly vm: Vm;
  readonly vcpu: Vcpu;
}

/** Where a PC has its first serial port. */
export const SERIAL_CONSOLE = 0x3f8;
/** How many ports it has. */
export const SERIAL_PORTS = 8;
/** SeaBIOS's debug console. */
export const FIRMWARE_CONSOLE = 0x402;

/**
 * The local APIC's usual address without its enable bit. With an APIC SeaBIOS waits for as many processors as the clock
 * chip's CMOS counts (smp.c, `smp_scan`), and where ports read ones there is none that could count the one there is.
 */
const APIC_OFF = 0xfee0_0000n;

/** A PC with a firmware at its reset vector: interrupt controllers, 16 MiB, a debug console, and nothing else. */
export function firmwareMachine(image: Uint8Array, port: number, sink: ConsoleSink): Machine {
  return machine({ irqchip: true }, vm => {
    vm.memory.map({ gpa: 0, size: 16 * MiB });
    vm.loadFirmware(image);
    vm.bus.port(port, 1, debugConsole(sink));
    const vcpu = vm.createVcpu();
    vcpu.setRegisters({ apicBase: APIC_OFF });
    return vcpu;
  });
}

/** Where the bytes of a flat guest go and how they start. */
export interface FlatGuest {
  readonly image: Uint8Array;
  readonly load: number;
  readonly memory: number;
  readonly boot: BootOptions;
}

/** Memory from 0 on with the guest in it, a serial console, and nothing else: no interrupt controller, no firmware. */
export function flatMachine(guest: FlatGuest, port: number, sink: ConsoleSink): Machine {
  return machine({}, vm => {
    vm.memory.map({ gpa: 0, size: guest.memory });
    vm.memory.write(guest.load, guest.image);
    vm.bus.port(port, SERIAL_PORTS, serialConsole(sink));
    const vcpu = vm.createVcpu();
    vcpu.boot(guest.boot);
    return vcpu;
  });
}

/** Closes the VM where it cannot be completed. */
function machine(how: Parameters<typeof Vm.create>[0], complete: (vm: Vm) => Vcpu): Machine {
  const vm = Vm.create(how);
  try {
    const vcpu = complete(vm);
    return { vm, vcpu, [Symbol.dispose]: () => vm.close() };
  } catch (error) {
    vm.close();
    throw error;
  }
}
