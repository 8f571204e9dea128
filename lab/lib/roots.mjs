// What a machine has besides its kernel: a static busybox for its initial RAM disk, and, where its processor is not this
// machine's, a small root image with Node.js: out of Debian's and npm's packages, nothing of them installed.
import {
  chmodSync,
  copyFileSync,
  cpSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { fetchPackage, scratchFolder } from '../../scripts/lib/debs.mjs';
import { output, run } from '../../scripts/lib/run.mjs';
import { Stop, say } from '../../scripts/lib/say.mjs';
import { filesBelow } from '../../scripts/lib/stale.mjs';
import { hostArch } from '../machines.mjs';
import { finishPart, storeDir } from './store.mjs';
import { debianArch, fetchAndUnpack } from './suites.mjs';

/** The release of Node.js for machines with another processor. */
const NODE = 24;
/** What Node.js, the addon and the Rust tests are linked to. */
const LIBRARIES = ['libc6', 'libstdc++6', 'libgcc-s1', 'libatomic1'];
/** Nothing there runs without these; an image that lacks one would fail late and strangely. */
const NEEDED = ['usr/bin/node', 'usr/bin/busybox', 'usr/bin/sh', 'usr/bin/env'];
/** mke2fs wants room for its own tables. */
const SPARE_MIB = 16;

const tellAll = line => say(`lab: ${line}`);

/** Fetches a static busybox into the cache; gives its part's folder. */
export async function fetchBusybox(arch, tell = tellAll) {
  const scratch = scratchFolder(storeDir());
  try {
    const root = join(scratch, 'root');
    const unpacked = await busyboxPackage(arch, root, tell);
    const binary = join(root, filesBelow(['bin/busybox', 'usr/bin/busybox'], root)[0] ?? 'bin/busybox');
    appletsOf(readFileSync(binary));
    copyFileSync(binary, join(scratch, 'busybox'));
    chmodSync(join(scratch, 'busybox'), 0o755);
    rmSync(root, { recursive: true });
    return await finishPart(scratch, `tools/${arch}`, {
      version: unpacked.split('_')[1].replace('%3a', ':'),
      packages: [unpacked],
    });
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

/** This machine's own lists have its own busybox; other processors' come from Debian's suites. */
async function busyboxPackage(arch, root, tell) {
  if (arch !== hostArch()) return (await fetchAndUnpack([`busybox-static:${debianArch(arch)}`], root, tell))[0];
  tell('fetching busybox-static (1 MB)');
  const unpacked = await fetchPackage('busybox-static', root);
  if (!unpacked)
    throw new Stop("lab: Debian's package busybox-static could not be fetched: the lab needs the registry once");
  return unpacked;
}

/** The names by which a busybox answers, out of its own table (sorted, each ended by a zero): it need not run here. */
export function appletsOf(binary) {
  const names = [];
  let at = binary.indexOf('[\0[[\0');
  while (at >= 0 && binary[at] > 0) {
    const end = binary.indexOf(0, at);
    names.push(binary.toString('latin1', at, end));
    at = end + 1;
  }
  if (!names.includes('sh') || !names.includes('env'))
    throw new Stop('lab: this busybox has no shell, or no known table');
  return names;
}

/** Makes the root image for machines with processor `arch`; gives its part's folder. */
export async function fetchRoot(arch, tell = tellAll) {
  const scratch = scratchFolder(storeDir());
  try {
    const root = join(scratch, 'root');
    const specs = ['busybox-static', ...LIBRARIES].map(name => `${name}:${debianArch(arch)}`);
    const packages = await fetchAndUnpack(specs, root, tell);
    mergeFolders(root);
    const version = await addNode(arch, scratch, root, tell);
    furnish(root);
    tell('writing the root image');
    await writeImage(root, join(scratch, 'root.ext4'));
    rmSync(root, { recursive: true });
    return await finishPart(scratch, `roots/${arch}`, { version, packages });
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

/** /bin, /sbin and the libraries' folders become links into /usr, as in any Debian: packages use both names. */
function mergeFolders(root) {
  const target = { sbin: 'bin' };
  for (const name of ['bin', 'sbin', 'lib', 'lib64', 'usr/sbin']) {
    const from = join(root, name);
    const under = name.replace('usr/', '');
    const to = join(root, 'usr', target[under] ?? under);
    mkdirSync(to, { recursive: true });
    if (lstatSync(from, { throwIfNoEntry: false })?.isDirectory()) {
      cpSync(from, to, { recursive: true, verbatimSymlinks: true });
      rmSync(from, { recursive: true });
    }
    symlinkSync(name === 'usr/sbin' ? 'bin' : `usr/${target[under] ?? under}`, from);
  }
}

/** npm's package of the Node.js binary, checked by npm against the registry's hash; gives its version. */
async function addNode(arch, scratch, root, tell) {
  const name = `node-linux-${{ x86_64: 'x64', aarch64: 'arm64' }[arch]}`;
  tell(`fetching npm's ${name}@${NODE} (50 MB)`);
  const lines = [];
  const onLine = (line, stream) => stream === 'stdout' && lines.push(line);
  const args = ['pack', '--json', '--pack-destination', scratch, `${name}@${NODE}`];
  const { status, tail } = await run('npm', args, { onLine });
  if (status !== 0)
    throw new Stop(
      [`lab: npm could not fetch ${name}: the lab needs the registry once.`, ...tail.slice(-5)].join('\n'),
    );
  const [{ filename, version }] = JSON.parse(lines.join('\n'));
  const tarball = join(scratch, filename);
  const unpacked = await run('tar', [
    '-xzf',
    tarball,
    '-C',
    join(root, 'usr'),
    '--strip-components=1',
    'package/bin/node',
  ]);
  if (unpacked.status !== 0) throw new Stop(`lab: ${filename} holds no Node.js`);
  rmSync(tarball);
  const binary = join(root, 'usr/bin/node');
  chmodSync(binary, 0o755);
  const strip = `${arch.replace('_', '-')}-linux-gnu-strip`; // of the cross binutils, if they are here: 10 MB less
  if (output(strip, ['--version']) !== undefined && (await run(strip, [binary])).status !== 0)
    throw new Stop(`lab: ${strip} failed on Node.js`);
  return version;
}

/** What makes the unpacked packages a root: commands, an account, the folders that init mounts on. */
function furnish(root) {
  for (const name of ['usr/share', 'usr/lib/lsb']) rmSync(join(root, name), { recursive: true, force: true });
  for (const library of readdirSync(join(root, 'usr/lib')).filter(name => name.endsWith('-linux-gnu')))
    for (const name of ['gconv', 'audit'])
      rmSync(join(root, 'usr/lib', library, name), { recursive: true, force: true });
  const bin = join(root, 'usr/bin');
  for (const applet of appletsOf(readFileSync(join(bin, 'busybox'))))
    if (!existsSync(join(bin, applet))) symlinkSync('busybox', join(bin, applet));
  for (const name of ['etc', 'proc', 'sys', 'dev', 'run', 'root', 'mnt', 'var/tmp', 'tmp'])
    mkdirSync(join(root, name), { recursive: true });
  for (const name of ['tmp', 'var/tmp']) chmodSync(join(root, name), 0o1777);
  chmodSync(join(root, 'root'), 0o700);
  chmodSync(root, 0o755);
  writeFileSync(join(root, 'etc/passwd'), 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n');
  writeFileSync(join(root, 'etc/group'), 'root:x:0:\nnogroup:x:65534:\n');
  writeFileSync(join(root, 'etc/hosts'), '127.0.0.1 localhost\n::1 localhost\n');
  const missing = NEEDED.filter(name => !existsSync(join(root, name)));
  if (missing.length > 0) throw new Stop(`lab: the root image would lack ${missing.join(', ')}`);
}

/** An ext4 image of a folder, without a journal: it is mounted read-only. */
async function writeImage(root, image) {
  const kib = Number(output('du', ['-sk', root]).split('\t')[0]);
  const size = `${Math.ceil(kib / 1024) + SPARE_MIB}M`;
  const options = ['-q', '-F', '-t', 'ext4', '-O', '^has_journal', '-m', '0', '-E', 'root_owner=0:0', '-d', root];
  const env = { PATH: `${process.env.PATH}:/usr/sbin:/sbin` };
  const { status, tail } = await run('mke2fs', [...options, image, size], { env, onLine: () => {} });
  if (status !== 0) throw new Stop(`lab: mke2fs could not write the root image: ${tail.at(-1) ?? ''}`);
}
