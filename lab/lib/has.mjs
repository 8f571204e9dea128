// What each machine's KVM has: asked at every boot (hold.c), remembered for `npm run lab -- list`, held to what the
// machine is for.
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ROOT } from '../../scripts/lib/paths.mjs';
import { storeDir } from './store.mjs';

/** Capabilities in which kernels of the lab differ. */
const INTERESTING = [
  'USER_MEMORY2',
  'MEMORY_FAULT_INFO',
  'MEMORY_ATTRIBUTES',
  'GUEST_MEMFD',
  'PRE_FAULT_MEMORY',
  'DIRTY_LOG_RING',
  'DIRTY_LOG_RING_ACQ_REL',
  'BINARY_STATS_FD',
  'SYSTEM_EVENT_DATA',
  'NR_MEMSLOTS',
];
/** KVM_CAP_EXIT_ON_MISSING of the lab's own kernel; no mainline header has it (lab/kernel/README.md). */
const EXIT_ON_MISSING = { name: 'exit-on-missing', number: 10_236 };

/** `{ name, number }`, the names in kebab-case as in the public API. */
export const ASKED = [...INTERESTING.map(fromHeader), EXIT_ON_MISSING];

function fromHeader(name) {
  const text = readFileSync(join(ROOT, 'crates/core/header/capabilities.txt'), 'utf8');
  const number = new RegExp(`^KVM_CAP_${name} (\\d+)$`, 'm').exec(text)?.[1];
  if (number === undefined) throw new Error(`KVM_CAP_${name} is not in crates/core/header/capabilities.txt`);
  return { name: name.toLowerCase().replaceAll('_', '-'), number: Number(number) };
}

/** What the lab's own kernel is for, by type of VM. */
const LAB_PROMISES = [
  ['default', 'exit-on-missing'],
  ['default', 'pre-fault-memory'],
  ['software-protected', 'memory-attributes'],
  ['software-protected', 'guest-memfd'],
];

/** Why this kernel can't be machine `lab`, whose image may be anybody's; undefined where it can, and for the others. */
export function unmetPromises(machine, has) {
  if (machine.kernel.kind !== 'lab') return undefined;
  const value = (type, name) => has[type]?.get(ASKED.find(asked => asked.name === name).number) ?? 0;
  const missing = LAB_PROMISES.filter(([type, name]) => value(type, name) <= 0);
  if (missing.length === 0) return undefined;
  const names = missing.map(([type, name]) => `${name} (${type} VM)`).join(', ');
  return `the kernel image lacks ${names}: it is not built from lab/kernel`;
}

/** Names of what there is, `NAME=VALUE` where the value says more than yes. */
export function described(has) {
  return Object.entries(has).map(([type, values]) => {
    const present = ASKED.filter(({ number }) => (values.get(number) ?? 0) > 0).map(({ name, number }) => {
      const value = values.get(number);
      return value === 1 ? name : `${name}=${value}`;
    });
    return { type, capabilities: present };
  });
}

function file(machine) {
  return join(storeDir(), 'seen', `${machine.id}.json`);
}

/** Notes what a machine had at its last boot. */
export function remember(machine, has) {
  mkdirSync(join(storeDir(), 'seen'), { recursive: true });
  writeFileSync(`${file(machine)}.new`, `${JSON.stringify(described(has), null, 2)}\n`);
  renameSync(`${file(machine)}.new`, file(machine));
}

/** What it had at its last boot; undefined where it has not booted. */
export function remembered(machine) {
  try {
    return JSON.parse(readFileSync(file(machine), 'utf8'));
  } catch (error) {
    if (error.code === 'ENOENT') return undefined;
    throw error;
  }
}
