// SeaBIOS, the firmware that `typevisor tour` boots: where it is, and how to get it without installing it.
import { existsSync, readdirSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fetchPackage, putInPlace, scratchFolder } from './debs.mjs';
import { cacheDir } from './paths.mjs';
import { hasApt } from './system.mjs';

const KiB = 1024;
const INSTALLED = '/usr/share/seabios/bios.bin';

/** Whether `file` can be a PC's firmware: 64 to 512 KiB, a power of two. */
export function isPlausible(file) {
  const size = statSync(file, { throwIfNoEntry: false })?.size ?? 0;
  return size >= 64 * KiB && size <= 512 * KiB && Number.isInteger(Math.log2(size));
}

/** The firmware to boot: `$TYPEVISOR_FIRMWARE`, the system's, the newest in the cache; undefined if there is none. */
export function findFirmware(env = process.env, installed = INSTALLED) {
  if (env.TYPEVISOR_FIRMWARE) return existsSync(env.TYPEVISOR_FIRMWARE) ? env.TYPEVISOR_FIRMWARE : undefined;
  return [installed, ...cached(env)].find(isPlausible);
}

/** Every SeaBIOS in the cache, newest first. */
function cached(env) {
  const folder = join(cacheDir(env), 'firmware');
  if (!existsSync(folder)) return [];
  const names = readdirSync(folder).filter(name => name.startsWith('seabios-'));
  return names
    .toSorted((a, b) => b.localeCompare(a, 'en', { numeric: true }))
    .map(name => join(folder, name, 'bios.bin'));
}

/** Fetches Debian's package `seabios` into the cache; gives the image's path, undefined if it is not to be had. */
export async function fetchFirmware() {
  if (!hasApt()) return undefined;
  const root = scratchFolder();
  try {
    const unpacked = await fetchPackage('seabios', root);
    if (!unpacked || !isPlausible(join(root, 'usr/share/seabios/bios.bin'))) return undefined;
    const version = unpacked.slice('seabios_'.length).replaceAll('%3a', '-');
    putInPlace(join(root, 'usr/share/seabios'), join(cacheDir(), 'firmware', `seabios-${version}`));
    return findFirmware();
  } finally {
    rmSync(root, { recursive: true, force: true });
  }
}

/** What to tell a person who has no firmware. */
export const HOW_TO_GET =
  "SeaBIOS is not here and could not be fetched; the tour goes on without it. Install Debian's package seabios, or set TYPEVISOR_FIRMWARE to its bios.bin";
