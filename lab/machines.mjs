// The machines of the lab: kernels × architectures, each with what it is for. What they are made of is prepare.mjs's.
import { Stop } from '../scripts/lib/say.mjs';

const debian = series => ({ kind: 'debian', series });

/** `{ id, arch, kernel, about }`: the id names the machine on the command line, in lists of skips and in reports. */
export const MACHINES = [
  {
    id: 'lab',
    arch: 'x86_64',
    kernel: { kind: 'lab' },
    about: 'memory attributes, software-protected VMs, pre-fault, exits on missing memory (7.2 with a patch)',
  },
  { id: '5.10', arch: 'x86_64', kernel: debian('5.10'), about: 'the oldest kernel: no user-memory2, 509 slots' },
  { id: '6.1', arch: 'x86_64', kernel: debian('6.1'), about: 'dirty ring, system-event data, no user-memory2' },
  { id: '6.12', arch: 'x86_64', kernel: debian('6.12'), about: 'user-memory2, memory-fault exits, VM types' },
  { id: 'newest', arch: 'x86_64', kernel: debian('newest'), about: "Debian's newest: guest_memfd with mappings" },
  { id: 'aarch64-5.10', arch: 'aarch64', kernel: debian('5.10'), about: 'system events with flags, 512 slots' },
  { id: 'aarch64-6.1', arch: 'aarch64', kernel: debian('6.1'), about: 'system events with data, 48-bit addresses' },
  { id: 'aarch64-6.12', arch: 'aarch64', kernel: debian('6.12'), about: 'user-memory2, dirty ring' },
  { id: 'aarch64-newest', arch: 'aarch64', kernel: debian('newest'), about: 'guest_memfd' },
];

export const ARCHITECTURES = ['x86_64', 'aarch64'];

/** This machine's architecture by its Rust name. */
export function hostArch(arch = process.arch) {
  return { x64: 'x86_64', arm64: 'aarch64' }[arch] ?? arch;
}

/** The machine that `npm test` uses: the one with most features for this processor. `TYPEVISOR_LAB=stock` avoids ours. */
export function defaultMachine(env = process.env, arch = hostArch()) {
  if (arch === 'aarch64') return byId('aarch64-newest');
  return byId(env.TYPEVISOR_LAB === 'stock' ? 'newest' : 'lab');
}

/** The machine with this id; a `Stop` that lists all where there is none. */
export function byId(id) {
  const found = MACHINES.find(machine => machine.id === id);
  if (!found)
    throw new Stop(`lab: no such machine: ${id} (there are: ${MACHINES.map(machine => machine.id).join(', ')})`, 2);
  return found;
}

/** The machine that `--kernel` and `--arch` name: an id, or a kernel's name and an architecture; none: the default. */
export function choose({ kernel, arch }, env = process.env, host = hostArch()) {
  if (arch !== undefined && !ARCHITECTURES.includes(arch))
    throw new Stop(`lab: no such architecture: ${arch} (there are: ${ARCHITECTURES.join(', ')})`, 2);
  if (kernel === undefined) return defaultMachine(env, arch ?? host);
  const exact = MACHINES.find(machine => machine.id === kernel);
  if (exact && (arch === undefined || exact.arch === arch)) return exact;
  if (exact?.arch === 'aarch64') throw new Stop(`lab: machine ${kernel} is ${exact.arch}, and --arch says ${arch}`, 2);
  const wanted = arch ?? host;
  return byId(wanted === 'aarch64' && !kernel.startsWith('aarch64-') ? `aarch64-${kernel}` : kernel);
}
