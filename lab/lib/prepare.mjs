// Makes machines ready: which parts each is made of, which of them are not here, and fetching or building those.
import { existsSync, mkdirSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { withLock } from '../../scripts/lib/lock.mjs';
import { shown } from '../../scripts/lib/paths.mjs';
import { Stop, say } from '../../scripts/lib/say.mjs';
import { installPackages } from '../../scripts/lib/system.mjs';
import { buildLabKernel, labKernel } from '../kernel/build.mjs';
import { hostArch } from '../machines.mjs';
import { fetchKernel } from './kernels.mjs';
import { emulator } from './qemu.mjs';
import { fetchBusybox, fetchRoot } from './roots.mjs';
import { isUntouched, readPart, storeDir, verifyPart } from './store.mjs';
import { forgetSuites } from './suites.mjs';

/** Debian's packages of the emulators and of what unpacks and packs; all but an emulator is on most machines. */
const EMULATOR_PACKAGES = { x86_64: 'qemu-system-x86', aarch64: 'qemu-system-arm' };
const BOOT_TOOLS = { setpriv: 'util-linux' };
const FETCH_TOOLS = { depmod: 'kmod', modprobe: 'kmod', xz: 'xz-utils', zstd: 'zstd', mke2fs: 'e2fsprogs', tar: 'tar' };

/** How each kind of part is made, by the first word of its name. */
const MAKERS = {
  kernels: (name, tell) => {
    const [, arch, series] = /^([^-]+)-(.+)$/.exec(name);
    return fetchKernel(arch, series, tell);
  },
  tools: fetchBusybox,
  roots: fetchRoot,
};

/** The parts of the cache that a machine boots from. The lab's own kernel is none: it may lie elsewhere. */
export function partsOf({ arch, kernel }, host = hostArch()) {
  return [
    ...(kernel.kind === 'debian' ? [`kernels/${arch}-${kernel.series}`] : []),
    `tools/${arch}`,
    ...(arch === host ? [] : [`roots/${arch}`]),
  ];
}

/** Whether a machine can be booted here: `{ ready: true, version }` or `{ ready: false, why }`. */
export function machineState(machine, store = storeDir()) {
  const missing = packagesNotHere(machine, BOOT_TOOLS);
  if (missing.length > 0) return { ready: false, why: `${missing.join(', ')} not installed` };
  for (const name of partsOf(machine)) {
    const part = readPart(name, store);
    if (part.state === 'missing') return { ready: false, why: `${name} is not fetched yet` };
    if (part.state === 'damaged') return { ready: false, why: `${shown(part.file)}: ${part.why}` };
  }
  if (machine.kernel.kind !== 'lab')
    return { ready: true, version: readPart(partsOf(machine)[0], store).manifest.version };
  const kernel = labKernel();
  return kernel.state === 'ready'
    ? { ready: true, version: `7.2-lab (${kernel.from})` }
    : { ready: false, why: kernel.why };
}

/** Debian's packages, of those that booting this machine and `tools` take, whose programs are not on PATH. */
function packagesNotHere({ arch }, tools) {
  const wanted = Object.entries({ [emulator(arch)]: EMULATOR_PACKAGES[arch], ...tools });
  return [...new Set(wanted.filter(([command]) => !onPath(command)).map(([, name]) => name))];
}

function onPath(command) {
  return `${process.env.PATH}:/usr/sbin:/sbin`.split(':').some(folder => folder && existsSync(join(folder, command)));
}

/**
 * Makes all `machines` ready, one process at a time; `again` fetches also what is here, for newer kernels. What fails for
 * one machine does not keep the others from theirs; a `Stop` with all reasons ends it then.
 */
export async function prepare(machines, { again = false } = {}) {
  await withLock(`lab-prepare ${storeDir()}`, sayWaiting, async () => {
    removeLeftovers();
    const done = new Set();
    const failures = [];
    for (const [index, machine] of machines.entries()) {
      const tell = line => say(`lab: ${index + 1}/${machines.length} ${machine.id}: ${line}`);
      try {
        await prepareOne(machine, { again, done, tell });
      } catch (error) {
        if (!(error instanceof Stop)) throw error;
        tell('not ready');
        failures.push(error);
      }
    }
    if (failures.length > 0) throw allOf(failures);
    await forgetSuites();
  });
}

function sayWaiting() {
  say('lab: waiting for another process that prepares machines');
}

/** What interrupted runs left behind; downloads stay, to be continued. */
function removeLeftovers() {
  mkdirSync(storeDir(), { recursive: true });
  for (const name of readdirSync(storeDir()).filter(isLeft))
    rmSync(join(storeDir(), name), { recursive: true, force: true });
}

/** One error of several; each reason once. */
function allOf(failures) {
  const stop = new Stop([...new Set(failures.map(({ message }) => message))].join('\n'), failures[0].exitCode);
  stop.kernelMissing = failures.every(({ kernelMissing }) => kernelMissing);
  return stop;
}

async function prepareOne(machine, { again, done, tell }) {
  await install(machine, BOOT_TOOLS, 'booting');
  for (const name of partsOf(machine)) {
    if (done.has(name)) continue;
    if (again || !(await isWhole(name, tell))) await make(machine, name, tell);
    done.add(name);
  }
  if (machine.kernel.kind === 'lab') await prepareLabKernel(tell);
}

/** Whether a part is here as it was made; what was touched since is read, and what a boot found damaged is known. */
async function isWhole(name, tell) {
  const part = readPart(name);
  if (part.state === 'missing') return false;
  if (part.state === 'ready' && isUntouched(part)) return true;
  try {
    await verifyPart(name);
    return true;
  } catch (error) {
    if (!(error instanceof Stop)) throw error;
    const { file, why } = readPart(name);
    tell(`${shown(file)}: ${why}; it is fetched anew`);
    return false;
  }
}

async function make(machine, name, tell) {
  await install(machine, FETCH_TOOLS, 'preparing');
  const slash = name.indexOf('/');
  const began = Date.now();
  await MAKERS[name.slice(0, slash)](name.slice(slash + 1), tell);
  tell(`${name} is ready (${readPart(name).manifest.version}, ${((Date.now() - began) / 1000).toFixed(0)} s)`);
}

async function install(machine, tools, purpose) {
  const missing = packagesNotHere(machine, tools);
  if (missing.length > 0)
    await installPackages(missing, `${purpose} machine ${machine.id} takes ${missing.join(', ')}`);
}

/** The lab's own kernel is found, else built. Why it can't be had is an error that says so: a stock one may do instead. */
async function prepareLabKernel(tell) {
  const found = labKernel();
  if (found.state === 'ready') return;
  try {
    if (found.state === 'stock') throw new Stop(`lab: ${found.why}`);
    tell(`${found.why}; building it`);
    await buildLabKernel();
  } catch (error) {
    if (error instanceof Stop) error.kernelMissing = true;
    throw error;
  }
}

/** A scratch folder is named after its process (scratchFolder). */
function isLeft(name) {
  return name.startsWith('new-') && !existsSync(`/proc/${name.split('-')[1]}`);
}
