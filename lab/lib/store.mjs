// The lab's cache: parts (folders) that were put in place in one step, each with a manifest of what belongs in it.
// What a part holds, and how it is made, is others' business; this file says whether it is whole.
import { createHash } from 'node:crypto';
import { createReadStream, mkdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { cacheDir, shown } from '../../scripts/lib/paths.mjs';
import { Stop } from '../../scripts/lib/say.mjs';
import { filesBelow } from '../../scripts/lib/stale.mjs';

/** What this code writes and reads; another number is a cache of another version, and made anew. */
const FORMAT = 1;
const MANIFEST = 'manifest.json';

/** The lab's folder in the cache. */
export function storeDir(env = process.env) {
  return join(cacheDir(env), 'lab');
}

/**
 * Whether a part (`kernels/x86_64-6.1`) is whole, by its files' sizes: `{ state: 'ready', dir, manifest }`,
 * `{ state: 'missing' }` or `{ state: 'damaged', file, why }`. A change of content that `verifyPart` has found counts too.
 */
export function readPart(name, store = storeDir()) {
  const dir = join(store, name);
  if (!statSync(dir, { throwIfNoEntry: false })) return { state: 'missing' };
  const file = join(dir, MANIFEST);
  const manifest = parseManifest(file);
  if (typeof manifest === 'string') return { state: 'damaged', file, why: manifest };
  if (manifest.damaged)
    return { state: 'damaged', file: join(dir, manifest.damaged), why: 'its content has changed since it was fetched' };
  for (const [path, { size }] of Object.entries(manifest.files)) {
    const why = sizeProblem(join(dir, path), size);
    if (why) return { state: 'damaged', file: join(dir, path), why };
  }
  return { state: 'ready', dir, manifest };
}

/** A manifest as an object, or why it is none. */
function parseManifest(file) {
  let manifest;
  try {
    manifest = JSON.parse(readFileSync(file, 'utf8'));
  } catch (error) {
    if (error.code === 'ENOENT') return 'it is missing';
    if (error instanceof SyntaxError) return 'it is no JSON';
    throw error;
  }
  if (manifest?.format !== FORMAT) return `its format is ${manifest?.format}, not ${FORMAT}`;
  const files = Object.entries(manifest.files ?? {});
  if (files.length === 0 || !files.every(([, noted]) => isKnown(noted))) return 'it does not say what belongs here';
  return manifest;
}

/** Whether a manifest says of a file what is needed to check it. */
function isKnown(noted) {
  return Number.isSafeInteger(noted?.size) && /^[0-9a-f]{64}$/.test(noted.sha256);
}

function sizeProblem(file, size) {
  const stat = statSync(file, { throwIfNoEntry: false });
  if (!stat?.isFile()) return 'it is missing';
  return stat.size === size ? undefined : `it has ${stat.size} bytes, not ${size}`;
}

/**
 * Checks every byte of a part and gives its folder. Throws a `Stop` that names the file and the command that mends it,
 * with `machine` as its argument; what is found is noted, so that this command sees it too.
 */
export async function verifyPart(name, machine, store = storeDir()) {
  const remedy = `Run: npm run lab -- prepare${machine ? ` ${machine}` : ''}`;
  const part = readPart(name, store);
  if (part.state === 'missing') throw new Stop(`lab: ${shown(join(store, name))} is not there. ${remedy}`);
  if (part.state === 'damaged') throw new Stop(`lab: ${shown(part.file)}: ${part.why}. ${remedy}`);
  for (const [path, { sha256 }] of Object.entries(part.manifest.files)) {
    const file = join(part.dir, path);
    if ((await sha256Of(file)) === sha256) continue;
    writeManifest(part.dir, { ...part.manifest, damaged: path });
    throw new Stop(`lab: ${shown(file)}: its content has changed since it was fetched. ${remedy}`);
  }
  return part.dir;
}

/** Size and time of a file, the time as archives keep it. */
function stamp(file) {
  const { size, mtimeMs } = statSync(file);
  return { size, modified: Math.floor(mtimeMs / 1000) };
}

/** Whether a ready part's files are those of its making by size and time: then reading them is left to who boots them. */
export function isUntouched({ dir, manifest }) {
  return Object.entries(manifest.files).every(([path, { modified }]) => stamp(join(dir, path)).modified === modified);
}

/** The SHA-256 of a file, in hexadecimal. */
export async function sha256Of(file) {
  const hash = createHash('sha256');
  await pipeline(createReadStream(file, { highWaterMark: 1 << 20 }), hash);
  return hash.digest('hex');
}

/**
 * Makes the folder `scratch` (on the cache's file system) the part `name`, in one step, in the place of what was there.
 * `about` is what its manifest says beside its files: `{ version, packages, … }`. Gives the part's folder.
 */
export async function finishPart(scratch, name, about, store = storeDir()) {
  const files = {};
  for (const path of filesBelow(['.'], scratch)) {
    const file = join(scratch, path);
    files[path] = { ...stamp(file), sha256: await sha256Of(file) };
  }
  writeManifest(scratch, { format: FORMAT, ...about, files });
  const dir = join(store, name);
  mkdirSync(dirname(dir), { recursive: true });
  const old = join(dirname(dir), `.old-${basename(dir)}`); // a rename replaces only an empty folder
  rmSync(old, { recursive: true, force: true });
  if (statSync(dir, { throwIfNoEntry: false })) renameSync(dir, old);
  renameSync(scratch, dir);
  rmSync(old, { recursive: true, force: true });
  return dir;
}

function writeManifest(dir, manifest) {
  const file = join(dir, MANIFEST);
  writeFileSync(`${file}.new`, `${JSON.stringify(manifest, null, 2)}\n`);
  renameSync(`${file}.new`, file);
}
