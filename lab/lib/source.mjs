// The kernel's source, as Debian packages it: the lab's own kernel and the kernel's selftests are built from it.
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { putInPlace } from '../../scripts/lib/debs.mjs';
import { withLock } from '../../scripts/lib/lock.mjs';
import { ROOT } from '../../scripts/lib/paths.mjs';
import { run } from '../../scripts/lib/run.mjs';
import { Stop, say } from '../../scripts/lib/say.mjs';
import { waitingFor } from './progress.mjs';
import { storeDir } from './store.mjs';
import { fetchSuitePackage } from './suites.mjs';
import { compareVersions } from './versions.mjs';

/** The series that lab/kernel's patch is for; the newest version of it that is to be had is taken. */
export const SERIES = '7.2';
/** Beside the source when it is whole. */
const NOTE = '.typevisor.json';
/** What makes a tree the lab's. */
export const PATCH = 'lab/kernel/exit-on-missing.patch';

/** The newest source in the cache: `{ version, dir }`, or undefined. */
export function cachedSource(folder = join(storeDir(), 'source')) {
  const names = existsSync(folder) ? readdirSync(folder) : [];
  const versions = names
    .filter(name => name.startsWith(`linux-${SERIES}.`) && existsSync(join(folder, name, NOTE)))
    .map(name => name.slice('linux-'.length))
    .toSorted(compareVersions);
  const version = versions.at(-1);
  return version && { version, dir: join(folder, `linux-${version}`) };
}

/** The source, from the cache or fetched: `{ version, dir }`. */
export async function kernelSource() {
  const found = cachedSource();
  if (found) return found;
  const wait = waitingFor('fetches the kernel source');
  return withLock(`lab-source ${storeDir()}`, wait, () => cachedSource() ?? fetchSource());
}

async function fetchSource() {
  const folder = join(storeDir(), 'source');
  const unpacked = join(folder, 'new'); // one name, so that what an interrupted run left is found
  rmSync(unpacked, { recursive: true, force: true });
  mkdirSync(unpacked, { recursive: true });
  const fetched = await fetchSuitePackage(`linux-source-${SERIES}`, join(unpacked, 'package'));
  const tarball = join(unpacked, `package/usr/src/linux-source-${SERIES}.tar.xz`);
  if (!existsSync(tarball)) throw new Stop(`lab: ${fetched} holds no ${basename(tarball)}`);
  say('lab: unpacking the kernel source (1.7 GB, half a minute)');
  const tree = join(unpacked, 'tree');
  mkdirSync(tree);
  await must('tar', ['-xJf', tarball, '--strip-components=1', '-C', tree], 'the kernel source could not be unpacked');
  const version = fetched.slice(fetched.indexOf('_') + 1);
  writeFileSync(join(tree, NOTE), `${JSON.stringify({ format: 1, version, packages: [fetched] })}\n`);
  const dir = join(folder, `linux-${version}`);
  putInPlace(tree, dir);
  rmSync(unpacked, { recursive: true, force: true });
  return { version, dir };
}

/**
 * The tree `FAMILY-KEY` of the source with the lab's patch, to build in; made if it is not there. Those of the family with
 * other keys are of no use any more and deleted: the caller holds the family's lock. A tree's files are links to the
 * cached source's: neither `patch` nor `make` writes into a file that is there.
 */
export async function buildTree({ dir }, family, key, folder = join(storeDir(), 'build')) {
  const tree = join(folder, `${family}-${key}`);
  const names = existsSync(folder) ? readdirSync(folder) : [];
  for (const name of names.filter(other => other.startsWith(`${family}-`) && !other.startsWith(`${family}-${key}`)))
    rmSync(join(folder, name), { recursive: true, force: true });
  if (existsSync(tree)) return tree;
  const making = `${tree}.new`;
  rmSync(making, { recursive: true, force: true });
  mkdirSync(dirname(tree), { recursive: true });
  await must('cp', ['-al', dir, making], 'the kernel source could not be linked');
  const patch = ['-p1', '--silent', '--no-backup-if-mismatch', '-d', making, '-i', join(ROOT, PATCH)];
  await must('patch', patch, `${PATCH} does not fit the source in ${basename(dir)}`);
  putInPlace(making, tree);
  return tree;
}

async function must(command, args, why) {
  const { status, tail } = await run(command, args, { onLine: () => {} });
  if (status !== 0) throw new Stop([`lab: ${why}:`, ...tail.slice(-10)].join('\n'));
}

/** The last lines of a log file. */
export function lastLinesOf(file, count = 20) {
  return readFileSync(file, 'utf8').trimEnd().split('\n').slice(-count).join('\n');
}
