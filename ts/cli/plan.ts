/** What `typevisor run` was asked for: checked, with defaults, the image read, and no VM yet. */

import { readFileSync, statSync } from 'node:fs';
import { messageOf } from '../errors.ts';
import { GiB, KiB } from '../units.ts';
import { BadImage, NOT_FOUND, REFUSED } from './codes.ts';
import { Misuse } from './command.ts';
import type { ConsoleSink } from '../console.ts';
import { findFirmware } from './firmware.ts';
import {
  FIRMWARE_CONSOLE,
  firmwareMachine,
  flatMachine,
  type Machine,
  SERIAL_CONSOLE,
  SERIAL_PORTS,
} from './machine.ts';
import { bytesOf, hex, milliseconds, portOf } from './numbers.ts';

/** The command's name, for messages. */
export const NAME = 'run';

/** What applies where nothing is said. */
export const DEFAULTS = { load: '0x1000', mode: 'real', memory: '16M', exitPort: '0xf4' } as const;

/** Options that say how a flat guest starts: the machine of a firmware is always the same. */
const FLAT_ONLY = ['load', 'entry', 'mode', 'user', 'memory'] as const;

const MODES = ['real', 'protected', 'long'] as const;
const PAGE = 4 * KiB;
/** Above it lie a PC's devices, and below them the host's tables of long mode. */
const MEMORY_MAX = 3 * GiB;
/** Where the stack of real mode begins, downward: 0 in a 16-bit register, whose first push wraps around. */
const REAL_MODE_STACK = 0;

/** The options of the command, as given. */
export interface RunValues {
  readonly flat?: boolean;
  readonly bios?: boolean;
  readonly load?: string;
  readonly entry?: string;
  readonly mode?: string;
  readonly user?: boolean;
  readonly memory?: string;
  readonly console?: string;
  readonly 'exit-port'?: string;
  readonly timeout?: string;
  readonly stats?: boolean;
}

/** What to run. */
export interface Plan {
  readonly file: string;
  readonly kind: 'flat' | 'bios';
  readonly exitPort: number;
  /** No limit where absent. */
  readonly timeoutMs?: number;
  readonly stats: boolean;
  /** Makes the VM with the guest in it. */
  machine(sink: ConsoleSink): Machine;
}

/**
 * Checks the options, then looks for the file.
 *
 * @throws {Misuse} For options that make no sense.
 * @throws {BadImage} For a file that is not there, or that cannot be run.
 */
export function planOf(values: RunValues, argument: string | undefined): Plan {
  const kind = kindOf(values);
  const common = commonOf(values, kind);
  if (kind === 'bios') {
    const file = argument ?? installedFirmware();
    const image = readImage(file);
    return { ...common, file, kind, machine: sink => firmwareMachine(image, common.console, sink) };
  }
  const flat = kind === 'flat' ? flatOf(values) : undefined;
  if (argument === undefined) throw new Misuse(`'${NAME}' needs the argument FILE`, NAME);
  const image = readImage(argument);
  if (kind === undefined || flat === undefined) {
    const how = 'say what it is: --flat for raw machine code, --bios for a PC firmware';
    throw new BadImage(REFUSED, `${argument}: ELF guests cannot be run yet; ${how}`);
  }
  if (flat.load + image.length > flat.memory) {
    const end = `${image.length} bytes at ${hex(flat.load)} end beyond the guest's memory of ${flat.memory} bytes`;
    throw new BadImage(REFUSED, `${argument}: ${end}; give more with --memory`);
  }
  return { ...common, file: argument, kind, machine: sink => flatMachine({ ...flat, image }, common.console, sink) };
}

function kindOf({ flat = false, bios = false, ...values }: RunValues): Plan['kind'] | undefined {
  if (flat && bios) throw new Misuse('--flat and --bios exclude each other', NAME);
  const foreign = FLAT_ONLY.find(name => values[name] !== undefined);
  if (!flat && foreign !== undefined) throw new Misuse(`--${foreign} is for guests with --flat`, NAME);
  if (flat) return 'flat';
  return bios ? 'bios' : undefined;
}

function commonOf(
  values: RunValues,
  kind: Plan['kind'] | undefined,
): Omit<Plan, 'file' | 'kind' | 'machine'> & { console: number } {
  const { console = hex(kind === 'bios' ? FIRMWARE_CONSOLE : SERIAL_CONSOLE), timeout, stats = false } = values;
  const port = portOf(console, 'console', NAME);
  const exitPort = portOf(values['exit-port'] ?? DEFAULTS.exitPort, 'exit-port', NAME);
  const ports = kind === 'bios' ? 1 : SERIAL_PORTS;
  if (exitPort >= port && exitPort < port + ports) {
    throw new Misuse(`the console at ${hex(port)} and the exit port ${hex(exitPort)} overlap`, NAME);
  }
  const limit = timeout === undefined ? {} : { timeoutMs: milliseconds(timeout, NAME) };
  return { console: port, exitPort, ...limit, stats };
}

function flatOf(values: RunValues): Omit<Parameters<typeof flatMachine>[0], 'image'> {
  const { load = DEFAULTS.load, entry = load, memory: size = DEFAULTS.memory, user = false } = values;
  const mode = MODES.find(name => name === (values.mode ?? DEFAULTS.mode));
  if (mode === undefined) throw new Misuse(`--mode takes ${MODES.join(', ')}; got '${values.mode}'`, NAME);
  if (user && mode === 'real')
    throw new Misuse('real mode has no privilege levels: --user is for the other modes', NAME);
  const memory = bytesOf(size, 'memory', NAME);
  if (memory === 0 || memory % PAGE !== 0 || memory > MEMORY_MAX) {
    throw new Misuse(`--memory takes a multiple of 4K, at most 3G; got '${size}'`, NAME);
  }
  const stack = mode === 'real' ? REAL_MODE_STACK : memory;
  const boot = { mode, privilege: user ? 'user' : 'kernel', entry: bytesOf(entry, 'entry', NAME), stack } as const;
  return { load: bytesOf(load, 'load', NAME), memory, boot };
}

function installedFirmware(): string {
  const found = findFirmware();
  if ('file' in found) return found.file;
  throw new BadImage(NOT_FOUND, found.skipped);
}

function readImage(file: string): Uint8Array {
  let image: Uint8Array;
  try {
    const status = statSync(file);
    // A device or a pipe may have no end.
    if (!status.isFile() && !status.isDirectory()) throw new BadImage(REFUSED, `${file} is no regular file`);
    if (status.size > GiB) throw new BadImage(REFUSED, `${file} is larger than 1 GiB`);
    image = readFileSync(file);
  } catch (error) {
    if (error instanceof BadImage) throw error;
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    if (code === 'ENOENT' || code === 'ENOTDIR') throw new BadImage(NOT_FOUND, `${file}: no such file`);
    throw new BadImage(REFUSED, `${file} cannot be read: ${messageOf(error)}`);
  }
  if (image.length === 0) throw new BadImage(REFUSED, `${file} is empty`);
  return image;
}
