// Debian's stock kernels, of any series and both architectures: chosen, fetched, and reduced to what a machine boots.
import {
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { basename, join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { scratchFolder, unpack } from '../../scripts/lib/debs.mjs';
import { run } from '../../scripts/lib/run.mjs';
import { Stop, say } from '../../scripts/lib/say.mjs';
import { NotThere } from './download.mjs';
import { newcArchive } from './newc.mjs';
import { finishPart, storeDir } from './store.mjs';
import { debianArch, withSuites } from './suites.mjs';
import { isArm64Image, kernelInside, moduleBytes } from './unpack.mjs';
import { compareVersions } from './versions.mjs';

/** What init and the root need, where it is not built in; kvm-amd for the emulated processor's SVM. */
const MODULES = ['virtio_pci', 'virtio_console', '9pnet_virtio', '9p', 'virtio_blk', 'overlay', 'ext4'];
const KVM_MODULES = { x86_64: ['kvm-amd'], aarch64: [] };
/** Others than the generic kernels: the cloud ones lack 9p, the real-time ones schedule in their own way. */
const OTHER_FLAVOUR = /-(cloud|rt|16k)-/;

/** Fetches the newest kernel of a series (`6.1`, or `newest` of all) into the cache; gives its part's folder. */
export async function fetchKernel(arch, series, tell = line => say(`lab: ${line}`)) {
  const files = await withSuites(suites => download(suites, arch, series, tell));
  const scratch = scratchFolder(storeDir());
  try {
    const root = join(scratch, 'root');
    mkdirSync(root);
    tell('unpacking it, and picking out what is needed');
    const packages = await unpack(files, root);
    const version = await reduce(root, scratch, arch);
    rmSync(root, { recursive: true });
    return await finishPart(scratch, `kernels/${arch}-${series}`, { version, packages });
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

/** Downloads the newest image of a series whose files the mirror really has: some are listed and gone. */
async function download(suites, arch, series, tell) {
  const names = (await suites.names('linux-image-')).filter(name => name.endsWith(`-${debianArch(arch)}`));
  const stanzas = await suites.show(names.map(name => `${name}:${debianArch(arch)}`));
  for (const specs of chooseImages(stanzas, debianArch(arch), series)) {
    const located = await suites.locate(specs);
    if (!located) continue;
    try {
      return await suites.download(located, tell);
    } catch (error) {
      if (!(error instanceof NotThere)) throw error;
      tell(`${error.message}; trying an older one`);
    }
  }
  throw new Stop(`lab: no suite of Debian has a kernel ${series} for ${arch}`);
}

/**
 * The images of a series among what apt says of packages, newest first; each as what to fetch, `name:arch=version`.
 * Since 6.19 an image is split (linux-binary-V, linux-modules-V, linux-base-V), and its package only names the pieces.
 */
export function chooseImages(stanzas, arch, series) {
  const prefix = series === 'newest' ? '\\d+\\.\\d+' : series.replaceAll('.', '\\.');
  const wanted = new RegExp(`^linux-image-${prefix}\\.\\d.*-${arch}$`);
  return stanzas
    .filter(
      ({ Package: name, Architecture }) => Architecture === arch && wanted.test(name) && !OTHER_FLAVOUR.test(name),
    )
    .toSorted((a, b) => compareVersions(b.Version, a.Version))
    .map(({ Package: name, Version: version, Depends: depends }) => {
      const more = pieces(depends).map(piece => `${piece.name}:${arch}${piece.version ? `=${piece.version}` : ''}`);
      return [`${name}:${arch}=${version}`].concat(more);
    });
}

/** The packages that an image is split into, from its dependencies. */
function pieces(depends = '') {
  const found = depends
    .split(/[,|]/)
    .map(text => /^\s*(linux-(?:binary|modules|base)-\d[^\s:]*)(?::\w+)?\s*(?:\(=\s*([^)\s]+)\))?/.exec(text))
    .filter(match => match !== null)
    .map(([, name, version]) => ({ name, version }));
  return found.filter(({ name }, index) => found.findIndex(other => other.name === name) === index);
}

/** Makes kernel, config and modules.cpio.gz in `to` of unpacked packages; gives the kernel's version. */
async function reduce(root, to, arch) {
  // kmod looks in /lib, or in a newer Debian in /usr/lib: what lies in the one is made to be seen in the other.
  if (!existsSync(join(root, 'usr/lib/modules'))) {
    mkdirSync(join(root, 'usr/lib'), { recursive: true });
    renameSync(join(root, 'lib/modules'), join(root, 'usr/lib/modules'));
  }
  rmSync(join(root, 'lib'), { recursive: true, force: true });
  symlinkSync('usr/lib', join(root, 'lib'));
  const [version] = readdirSync(join(root, 'usr/lib/modules'));
  const boot = name =>
    [join(root, 'boot', `${name}-${version}`), join(root, 'usr/lib/modules', version, name)].find(existsSync);
  const image = readFileSync(boot('vmlinuz') ?? join(root, 'boot', `vmlinuz-${version}`));
  if (arch === 'aarch64' && !isArm64Image(image))
    throw new Stop(`lab: the kernel ${version} is packed in a way that QEMU does not start`);
  writeFileSync(join(to, 'kernel'), arch === 'x86_64' ? kernelInside(image) : image);
  writeFileSync(join(to, 'config'), readFileSync(boot('config')));
  writeFileSync(join(to, 'modules.cpio.gz'), gzipSync(await modulesArchive(root, version, arch)));
  return version;
}

/** /m/NNN-name.ko for each module that is needed, in the order in which they load. */
async function modulesArchive(root, version, arch) {
  await kmod('depmod', ['-b', root, version], 'the modules have no order');
  const orders = [];
  for (const name of [...MODULES, ...KVM_MODULES[arch]]) {
    const args = ['-C', '/dev/null', '-d', root, '-S', version, '--show-depends', name];
    orders.push(await kmod('modprobe', args, `the kernel ${version} has no module ${name}`));
  }
  const files = loadOrder(orders.flat()).map((file, index) => [
    `m/${101 + index}-${basename(file).replace(/\.ko(\.\w+)?$/, '')}.ko`,
    moduleBytes(readFileSync(file)),
  ]);
  return newcArchive(Object.fromEntries(files));
}

/** The files of `insmod FILE [OPTIONS]` lines, each once, in order; what is built in has no such line. */
export function loadOrder(lines) {
  const files = lines
    .map(line => /^insmod (.+?\.ko(?:\.\w+)?)(?: |$)/.exec(line)?.[1])
    .filter(file => file !== undefined);
  return [...new Set(files)];
}

/** Runs a program of kmod, which lies where only root's PATH leads; gives its lines. */
async function kmod(command, args, why) {
  const lines = [];
  const env = { PATH: `${process.env.PATH}:/usr/sbin:/sbin` };
  const onLine = (line, stream) => stream === 'stdout' && lines.push(line);
  const { status, tail } = await run(command, args, { env, onLine });
  if (status !== 0) throw new Stop(`lab: ${why}: ${tail.at(-1) ?? `${command} failed`}`);
  return lines;
}
