// The lab's own kernel: where it is, and how it is made. Its configuration, its patch and why it exists are in README.md.
import { createHash } from 'node:crypto';
import {
  appendFileSync,
  copyFileSync,
  existsSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { availableParallelism } from 'node:os';
import { join, resolve } from 'node:path';
import { scratchFolder } from '../../scripts/lib/debs.mjs';
import { withLock } from '../../scripts/lib/lock.mjs';
import { ROOT, shown } from '../../scripts/lib/paths.mjs';
import { output } from '../../scripts/lib/run.mjs';
import { Stop, say } from '../../scripts/lib/say.mjs';
import { filesBelow } from '../../scripts/lib/stale.mjs';
import { compilerFor } from '../lib/hold.mjs';
import { runMake } from '../lib/make.mjs';
import { Progress, clock, progressLine, waitingFor } from '../lib/progress.mjs';
import { PATCH, buildTree, kernelSource } from '../lib/source.mjs';
import { finishPart, readPart, storeDir } from '../lib/store.mjs';
import { KERNEL_TOOLS, needTools } from '../lib/tools.mjs';
import { compareVersions } from '../lib/versions.mjs';

const CONFIG = 'lab/kernel/x86.config';
const FAMILY = 'x86_64-lab';
const NAME = /^x86_64-lab-[0-9a-f]{16}$/;
/** What make says for each file that it compiles. */
const COMPILED = /^ {2}(HOST)?(CC|AS|AR|LD)\b/;
/** How many of those a whole build has, for the progress. */
const ABOUT = 2160;

/** The name of the kernel that these inputs make. */
export function kernelName({ config, patch, version }) {
  const hash = createHash('sha256');
  for (const input of [config, patch, version]) hash.update(`${Buffer.byteLength(input)}\0`).update(input);
  return `${FAMILY}-${hash.digest('hex').slice(0, 16)}`;
}

/** The name of the kernel that this repository's configuration and patch make of a version of the source. */
function nameFor(version) {
  return kernelName({ config: text(CONFIG), patch: text(PATCH), version });
}

const text = file => readFileSync(join(ROOT, file), 'utf8');

/**
 * The lab's kernel as it can be had at once: `{ state: 'ready', path, from }`, `from` being where it was found (one from
 * the cache has `part`, its name in store.mjs); `{ state: 'missing', why }`; or `{ state: 'stock', why }` where it is not
 * wanted. Needs no network.
 */
export function labKernel(env = process.env) {
  if (env.TYPEVISOR_LAB && env.TYPEVISOR_LAB !== 'stock')
    throw new Stop(`TYPEVISOR_LAB=${env.TYPEVISOR_LAB}: the one value it takes is stock (Debian's newest kernel)`, 2);
  if (env.TYPEVISOR_LAB === 'stock') return { state: 'stock', why: 'TYPEVISOR_LAB=stock asks for a stock kernel' };
  const given = env.TYPEVISOR_LAB_IMAGE;
  if (given) return { state: 'ready', path: givenImage(given), from: 'TYPEVISOR_LAB_IMAGE' };
  const { part, damaged } = newestBuilt();
  if (part) return cached(part);
  const why = damaged ? `its own kernel is damaged: ${damaged}` : 'its own kernel has not been built';
  return { state: 'missing', why };
}

function givenImage(given) {
  const path = resolve(given);
  if (!statSync(path, { throwIfNoEntry: false })?.isFile())
    throw new Stop(
      `TYPEVISOR_LAB_IMAGE=${given}: there is no such file; unset it, or name a kernel built by lab/kernel`,
      2,
    );
  return path;
}

function cached(name) {
  return { state: 'ready', path: join(storeDir(), 'kernels', name, 'kernel'), from: 'cache', part: `kernels/${name}` };
}

/** Of the kernels in the cache the name of the newest that these very inputs made: `{ part }`, or `{ damaged }` with a reason. */
function newestBuilt() {
  const folder = join(storeDir(), 'kernels');
  const names = existsSync(folder) ? readdirSync(folder).filter(name => NAME.test(name)) : [];
  const parts = names.map(name => ({ name, found: readPart(`kernels/${name}`) }));
  const ours = parts
    .filter(({ name, found }) => found.state === 'ready' && name === nameFor(found.manifest.source))
    .toSorted((a, b) => compareVersions(a.found.manifest.source, b.found.manifest.source));
  const bad = parts.find(({ found }) => found.state === 'damaged')?.found;
  return { part: ours.at(-1)?.name, damaged: bad && `${shown(bad.file)} (${bad.why})` };
}

/** Builds the kernel into the cache and gives what `labKernel` then finds there. A build that was killed goes on. */
export async function buildLabKernel() {
  await needTools(KERNEL_TOOLS, "building the lab's kernel");
  const cross = await crossArguments();
  const source = await kernelSource();
  const name = nameFor(source.version);
  const wait = waitingFor("builds the lab's kernel");
  await withLock(`lab-kernel ${storeDir()}`, wait, async () => {
    if (readPart(`kernels/${name}`).state !== 'ready') await build(source, name, cross);
  });
  return cached(name);
}

/** What make is told on a machine with another processor. */
async function crossArguments() {
  const command = await compilerFor('x86_64');
  const prefix = /^(.*-linux-gnu-)gcc$/.exec(command)?.[1];
  return ['ARCH=x86_64', ...(prefix ? [`CROSS_COMPILE=${prefix}`] : [])];
}

async function build(source, name, cross) {
  const tree = await buildTree(source, FAMILY, name.slice(FAMILY.length + 1));
  const log = `${tree}.log`;
  const make = targets => ['-C', tree, ...cross, `-j${availableParallelism()}`, ...targets];
  say(`lab: building the lab's kernel from ${source.version}, once (about 10 min on 2 cores; log: ${shown(log)})`);
  const began = Date.now();
  rmSync(log, { force: true });
  if (!existsSync(join(tree, CONFIGURED))) await configure(tree, make, log);
  await compile(tree, make(['bzImage']), log);
  const kernelVersion = output('make', ['-s', '-C', tree, ...cross, 'kernelrelease']);
  const scratch = scratchFolder(storeDir());
  copyFileSync(join(tree, 'arch/x86/boot/bzImage'), join(scratch, 'kernel'));
  copyFileSync(join(tree, '.config'), join(scratch, 'config'));
  const packages = [`linux-source_${source.version}`];
  await finishPart(scratch, `kernels/${name}`, { version: kernelVersion, packages, source: source.version });
  rmSync(tree, { recursive: true, force: true });
  rmSync(log, { force: true });
  say(`lab: the lab's kernel ${kernelVersion} is built (${clock((Date.now() - began) / 1000)})`);
}

/** What says that a tree is configured: a run that is killed before it is written configures anew. */
const CONFIGURED = '.config.done';

async function configure(tree, make, log) {
  const config = join(tree, '.config');
  await runMake('the kernel', make(['tinyconfig']), log);
  appendFileSync(config, text(CONFIG));
  await runMake('the kernel', make(['olddefconfig']), log);
  const unmet = unmetLines(text(CONFIG), readFileSync(config, 'utf8'));
  if (unmet.length > 0) throw new Stop(`lab: ${CONFIG} asks for what this source has not: ${unmet.join(', ')}`);
  writeFileSync(join(tree, CONFIGURED), '');
}

/** The lines of a configuration that are not true of another; `NAME=n` is also met by a name that is not there. */
export function unmetLines(wanted, config) {
  const have = new Set(config.split('\n'));
  const lines = wanted.split('\n').filter(line => line.startsWith('CONFIG_'));
  return lines.filter(line => {
    const off = /^(\w+)=n$/.exec(line);
    return off ? config.includes(`\n${off[1]}=`) : !have.has(line);
  });
}

/** Runs make to its end with its output in `log`; what is compiled already counts as done. */
async function compile(tree, args, log) {
  let done = filesBelow(['.'], tree).filter(file => file.endsWith('.o')).length;
  const began = Date.now();
  const progress = new Progress(() =>
    progressLine("lab's kernel", done, ABOUT, 'objects', (Date.now() - began) / 1000),
  );
  try {
    await runMake('the kernel', args, log, line => (done += COMPILED.test(line) ? 1 : 0));
  } finally {
    progress.end();
  }
}
