/** The tour's third step: finds SeaBIOS, boots it unmodified and streams its log until it looks for a boot device. */

import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import type { Exit } from '../exit.ts';
import { KiB } from '../units.ts';
import { drive, type Ending } from './drive.ts';
import { FIRMWARE_CONSOLE, firmwareMachine } from './machine.ts';
import type { Terminal } from './terminal.ts';

/** Where Debian's package `seabios` puts it. */
const INSTALLED = '/usr/share/seabios/bios.bin';

/** What to do where there is none. */
const HOW_TO_GET = 'run: sudo apt-get install seabios (or set TYPEVISOR_FIRMWARE to a bios.bin)';

/** The log is done when SeaBIOS has tried everything it could boot. */
const DONE = /No bootable device.*\n/u;
/** It got to its boot menu or its search for a boot device. */
const REACHED = /Searching bootorder|Booting from/u;

/** How a boot went. */
export interface FirmwareRun {
  readonly file: string;
  /** `'reached'`: its log shows the boot menu or the search for a boot device. `'stopped'`: the guest ended before. */
  readonly outcome: 'reached' | 'timeout' | 'stopped';
  /** The exit that ended it, where one did. */
  readonly exit?: Exit;
  readonly seconds: number;
  readonly log: string;
}

/** `$TYPEVISOR_FIRMWARE`, the system's, or the newest in the cache; else why there is none. */
export function findFirmware(): { readonly file: string } | { readonly skipped: string } {
  const named = process.env['TYPEVISOR_FIRMWARE'];
  if (named !== undefined && named !== '') {
    return existsSync(named) ? { file: named } : { skipped: `TYPEVISOR_FIRMWARE is ${named}, which is not there` };
  }
  const file = [INSTALLED, ...cached()].find(isPlausible);
  return file === undefined ? { skipped: `there is no SeaBIOS here; ${HOW_TO_GET}` } : { file };
}

/** What the set-up of a clone has fetched, newest first. */
function cached(): string[] {
  const base = process.env['XDG_CACHE_HOME'];
  const folder = join(base === undefined || base === '' ? join(homedir(), '.cache') : base, 'typevisor/firmware');
  try {
    const names = readdirSync(folder).filter(name => name.startsWith('seabios-'));
    const newestFirst = names.toSorted((a, b) => b.localeCompare(a, 'en', { numeric: true }));
    return newestFirst.map(name => join(folder, name, 'bios.bin'));
  } catch {
    return []; // no cache yet, or none that we may read
  }
}

/** A PC's firmware is a power of two from 64 to 512 KiB. */
function isPlausible(file: string): boolean {
  const size = statSync(file, { throwIfNoEntry: false })?.size ?? 0;
  return size >= 64 * KiB && size <= 512 * KiB && Number.isInteger(Math.log2(size));
}

/** Boots `file` with its log going to the terminal, for `timeoutMs` at most. */
export async function bootFirmware(file: string, timeoutMs: number, terminal: Terminal): Promise<FirmwareRun> {
  const begin = performance.now();
  let log = '';
  const text = new TextDecoder('latin1');
  using machine = firmwareMachine(readFileSync(file), FIRMWARE_CONSOLE, chunk => {
    terminal.console.write(chunk);
    log += text.decode(chunk);
    if (DONE.test(log)) machine.vcpu.kick();
  });
  machine.vm.bus.unclaimed({ ports: 'ones' });
  const signal = AbortSignal.any([terminal.signal, AbortSignal.timeout(timeoutMs)]);
  const ending = await drive(machine.vcpu, { signal });
  terminal.signal.throwIfAborted();
  if (log !== '' && !log.endsWith('\n')) terminal.console.write('\n');
  const seconds = Math.round((performance.now() - begin) / 100) / 10;
  const stopped = ending.how === 'stopped' ? { exit: ending.exit } : {};
  return { file, outcome: outcomeOf(log, ending), ...stopped, seconds, log };
}

function outcomeOf(log: string, { how }: Ending): FirmwareRun['outcome'] {
  if (REACHED.test(log)) return 'reached';
  return how === 'aborted' ? 'timeout' : 'stopped';
}
