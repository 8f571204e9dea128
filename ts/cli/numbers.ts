/** Numbers as people write them on a command line. */

import { GiB, KiB, MiB } from '../units.ts';
import { Misuse } from './command.ts';

const UNITS: Readonly<Record<string, number>> = { '': 1, K: KiB, M: MiB, G: GiB };

/** Longest time limit a timer takes, in seconds. */
const SECONDS_MAX = Math.floor((2 ** 31 - 1) / 1000);

/** One past the last I/O port of x86. */
const PORTS = 0x1_0000;

/** Seconds, as milliseconds. @throws {Misuse} */
export function milliseconds(text: string, command: string): number {
  const seconds = text.trim() === '' ? Number.NaN : Number(text);
  if (seconds > 0 && seconds <= SECONDS_MAX) return Math.ceil(seconds * 1000);
  throw new Misuse(`--timeout takes seconds, more than 0 and at most ${SECONDS_MAX}; got '${text}'`, command);
}

/** An address or a size in bytes: `4096`, `0x1000`, `4K`, `16M`, `1G`. @throws {Misuse} */
export function bytesOf(text: string, option: string, command: string): number {
  const [, number = '', unit = ''] = /^(0x[0-9a-f]+|\d+)([KMG]?)$/iu.exec(text) ?? [];
  const bytes = number === '' ? Number.NaN : Number(number) * (UNITS[unit.toUpperCase()] ?? Number.NaN);
  if (Number.isSafeInteger(bytes)) return bytes;
  throw new Misuse(`--${option} takes bytes, as in 4096, 0x1000, 4K or 16M; got '${text}'`, command);
}

/** An I/O port. @throws {Misuse} */
export function portOf(text: string, option: string, command: string): number {
  const port = /^(?:0x[0-9a-f]+|\d+)$/iu.test(text) ? Number(text) : Number.NaN;
  if (port < PORTS) return port;
  throw new Misuse(`--${option} takes an I/O port, 0 to 0xffff; got '${text}'`, command);
}

/** `0x1000`. */
export function hex(value: number | bigint): string {
  return `0x${value.toString(16)}`;
}
