// Which processor runs what. A thread that wanders doubles a figure, so every child is pinned by taskset; a vCPU thread
// that is to run beside its JavaScript thread is moved once it exists.
import { readFileSync, readdirSync } from 'node:fs';
import { output } from '../../scripts/lib/run.mjs';
import { Stop } from '../../scripts/lib/say.mjs';

/** How the core names the threads that run vCPUs. */
const VCPU_THREAD = 'kvm-vcpu';

/** The processors this process may use, `Cpus_allowed_list` of proc(5): `0-2,5` is [0, 1, 2, 5]. */
export function parseCpuList(text) {
  return text.split(',').flatMap(part => {
    const [first, last = first] = part.split('-').map(Number);
    return Array.from({ length: last - first + 1 }, (_, index) => first + index);
  });
}

/**
 * `{ guest, other, pinned }`: where guests run, and a second processor, if there is one. The last one, as interrupts
 * tend to be served by the first.
 */
export function processors() {
  const allowed = parseCpuList(/Cpus_allowed_list:\s*(\S+)/.exec(readFileSync('/proc/self/status', 'utf8'))[1]);
  const pinned = output('taskset', ['--version']) !== undefined;
  return { guest: allowed.at(-1), other: allowed.length > 1 ? allowed[0] : undefined, pinned };
}

/** `command` on these processors and no others. */
export function pinnedTo(cpus, command, { pinned }) {
  return pinned ? ['taskset', '--cpu-list', cpus.join(','), ...command] : command;
}

/** Gives the vCPU threads of process `pid` the processor `guest`, and all its other threads `other`. */
export function separate(pid, { guest, other }) {
  let vcpus = 0;
  for (const tid of readdirSync(`/proc/${pid}/task`)) {
    const isVcpu = readFileSync(`/proc/${pid}/task/${tid}/comm`, 'utf8').startsWith(VCPU_THREAD);
    vcpus += Number(isVcpu);
    if (output('taskset', ['--pid', '--cpu-list', String(isVcpu ? guest : other), tid]) === undefined)
      throw new Stop(`bench: thread ${tid} cannot be moved`);
  }
  if (vcpus === 0) throw new Stop(`bench: process ${pid} has no thread ${VCPU_THREAD}`);
}
