import { debugConsole, MiB, Vm } from 'typevisor';

/** What SeaBIOS says about a boot. */
interface BootLog {
  readonly version: string;
  readonly ramBytes: number;
  readonly cpuMhz: number | undefined;
  /** What it tried to boot, in order, and why that failed. */
  readonly attempts: readonly { readonly device: string; readonly failure: string | undefined }[];
}

const RAM = 16 * MiB;
const FIRMWARE = process.argv[2] ?? '/usr/share/seabios/bios.bin'; // Debian's package seabios

/** The clock chip of a PC, in whose memory firmware looks for the set-up: an index port and a data port. */
class Cmos {
  #index = 0;
  readonly #memory = new Map([
    [0x30, ((RAM - MiB) / 1024) & 0xff], // KiB of memory beyond the first MiB
    [0x31, (RAM - MiB) / 1024 / 256],
  ]);

  write(offset: number, _size: number, value: number): void {
    if (offset === 0) this.#index = value & 0x7f; // the top bit masks interrupts
  }

  read(offset: number): number {
    return offset === 1 ? (this.#memory.get(this.#index) ?? 0) : 0xff;
  }
}

function parse(log: string): BootLog {
  const find = (pattern: RegExp): string | undefined => pattern.exec(log)?.[1];
  const mhz = find(/^CPU Mhz=(\d+)/m);
  return {
    version: find(/^SeaBIOS \(version (.+)\)$/m) ?? 'unknown',
    ramBytes: Number(find(/^RamSize: (0x[0-9a-f]+)/m) ?? 0),
    cpuMhz: mhz === undefined ? undefined : Number(mhz),
    attempts: Array.from(log.matchAll(/^Booting from (.+)\.\.\.\n(?:Boot failed: (.+)\n)?/gm), match => ({
      device: match[1] ?? '',
      failure: match[2],
    })),
  };
}

using vm = Vm.create({ irqchip: true });
vm.memory.map({ gpa: 0, size: RAM });
vm.loadFirmware(FIRMWARE);
const vcpu = vm.createVcpu();

let log = '';
const text = new TextDecoder('latin1');
const take = (chunk: Uint8Array): void => {
  log += text.decode(chunk);
  if (/^No bootable device/m.test(log)) vcpu.kick(); // it would wait for a minute and try again
};
vm.bus.port(0x402, 1, debugConsole(take));
vm.bus.port(0x70, 2, new Cmos());
vm.bus.unclaimed({ ports: 'ones' });

const exit = await vcpu.run({ signal: AbortSignal.timeout(120_000) });
if (exit.kind !== 'intr') throw new Error(`SeaBIOS stopped with the exit '${exit.kind}'`);
console.log(parse(log));
