// The kernel's KVM selftests, built from the source that the lab's kernel is built from, patch included. Static, so that
// they run in every machine of their processor. They are the kernel's (GPL-2.0) and stay in the cache.
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { dirname, join } from 'node:path';
import { scratchFolder } from '../../scripts/lib/debs.mjs';
import { withLock } from '../../scripts/lib/lock.mjs';
import { ROOT, shown } from '../../scripts/lib/paths.mjs';
import { output, run } from '../../scripts/lib/run.mjs';
import { Stop, say } from '../../scripts/lib/say.mjs';
import { compilerFor } from '../lib/hold.mjs';
import { runMake } from '../lib/make.mjs';
import { Progress, progressLine, waitingFor } from '../lib/progress.mjs';
import { PATCH, buildTree, kernelSource } from '../lib/source.mjs';
import { finishPart, readPart, storeDir, verifyPart } from '../lib/store.mjs';
import { forgetSuites } from '../lib/suites.mjs';
import { SELFTEST_TOOLS, needTools } from '../lib/tools.mjs';
import { compareVersions } from '../lib/versions.mjs';

const FOLDER = 'tools/testing/selftests/kvm';
/** The kernel's makefiles have Debian's name for one of the two processors. */
const KERNEL_ARCH = { x86_64: 'x86_64', aarch64: 'arm64' };
/** How many compiler calls a build makes, for the progress. */
const ABOUT = { x86_64: 231, aarch64: 109 };

/** The tests for a processor, from the cache or built: `{ dir, version, names }`, `names` in the makefile's order. */
export async function builtSelftests(arch) {
  const name = (await wholePart(arch)) ?? (await build(arch));
  const { dir, manifest } = readPart(name);
  return { dir, version: manifest.version, names: manifest.names };
}

/** Those in the cache, if not a byte of them has changed. */
async function wholePart(arch) {
  const name = cachedName(arch);
  if (name === undefined) return undefined;
  try {
    await verifyPart(name);
    return name;
  } catch (error) {
    if (!(error instanceof Stop)) throw error;
    say(`${error.message.split('. Run:')[0]}; building the selftests anew`);
    return undefined;
  }
}

/** The newest that were built with this very patch. */
function cachedName(arch) {
  const folder = join(storeDir(), 'selftests');
  const names = existsSync(folder) ? readdirSync(folder).filter(name => name.startsWith(`${arch}-`)) : [];
  return names
    .toSorted(compareVersions)
    .map(name => `selftests/${name}`)
    .findLast(name => {
      const part = readPart(name);
      return part.state === 'ready' && part.manifest.patch === patchHash();
    });
}

function patchHash() {
  return createHash('sha256')
    .update(readFileSync(join(ROOT, PATCH)))
    .digest('hex');
}

async function build(arch) {
  await needTools(SELFTEST_TOOLS, "building the kernel's selftests");
  const compiler = await compilerFor(arch);
  const prefix = /^(.*-linux-gnu-)gcc$/.exec(compiler)?.[1];
  const source = await kernelSource();
  const name = `selftests/${arch}-${source.version}`;
  const wait = waitingFor("builds the kernel's selftests");
  await withLock(`lab-selftests ${storeDir()} ${arch}`, wait, async () => {
    if (cachedName(arch) !== name) await buildPart(arch, source, name, prefix);
  });
  await forgetSuites();
  return name;
}

async function buildPart(arch, source, name, prefix) {
  const tree = await buildTree(source, `selftests-${arch}`, patchHash().slice(0, 16));
  const log = `${tree}.log`;
  say(`lab: building the kernel's KVM selftests for ${arch} from ${source.version}, once (log: ${shown(log)})`);
  const settings = [`ARCH=${KERNEL_ARCH[arch]}`, ...(prefix ? [`CROSS_COMPILE=${prefix}`] : [])];
  const built = join(tree, 'built');
  const folder = ['-C', join(tree, FOLDER), ...settings, `OUTPUT=${built}`, 'EXTRA_CFLAGS=-static'];
  rmSync(log, { force: true });
  await runMake('the selftests', ['-C', tree, ...settings, 'headers'], log); // as the selftests' own documentation says
  await compile(arch, folder, log);
  const names = await testNames(folder, built);
  const scratch = scratchFolder(storeDir());
  await strip(names, built, scratch, prefix);
  const packages = [`linux-source_${source.version}`];
  await finishPart(scratch, name, { version: source.version, packages, patch: patchHash(), names });
  rmSync(tree, { recursive: true, force: true });
  rmSync(log, { force: true });
  say(`lab: ${names.length} selftests for ${arch} are built`);
}

async function compile(arch, folder, log) {
  let done = 0;
  const began = Date.now();
  const progress = new Progress(() =>
    progressLine(`selftests ${arch}`, done, ABOUT[arch], 'compiler calls', (Date.now() - began) / 1000),
  );
  try {
    await runMake(
      'the selftests',
      [`-j${availableParallelism()}`, ...folder],
      log,
      line => (done += /^\S*gcc /.test(line) ? 1 : 0),
    );
  } finally {
    progress.end();
  }
}

/** The makefile's list of tests; those that only a script of the kernel's calls with arguments are not on it. */
async function testNames(folder, built) {
  const list = output('make', ['-s', ...folder, '--eval=typevisor:;@echo $(TEST_GEN_PROGS)', 'typevisor']);
  const names = (list ?? '').split(/\s+/).filter(path => path.startsWith(`${built}/`));
  if (names.length === 0) throw new Stop(`lab: ${FOLDER} lists no tests`);
  return names.map(path => path.slice(built.length + 1));
}

/** Copies the programs without what only a debugger reads: half of their size. */
async function strip(names, from, to, prefix = '') {
  for (const name of names) {
    mkdirSync(dirname(join(to, name)), { recursive: true });
    const { status } = await run(`${prefix}strip`, ['-o', join(to, name), join(from, name)]);
    if (status !== 0) throw new Stop(`lab: ${name} could not be stripped`);
  }
}
