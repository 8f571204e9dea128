// Debian packages unpacked into a folder, never installed: needs apt and dpkg-deb, but not root.
import { mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { cacheDir } from './paths.mjs';
import { output, run } from './run.mjs';

/** apt's settings for a package view of our own: lists and archives in `folder`, the machine's sources. */
export function privateView(folder, architectures) {
  const lists = join(folder, 'lists');
  const archives = join(folder, 'archives');
  for (const made of [lists, archives]) mkdirSync(join(made, 'partial'), { recursive: true });
  return [
    ...option('Dir::State::lists', lists),
    ...option('Dir::Cache::archives', archives),
    ...option('Dir::Cache::pkgcache', ''),
    ...option('Dir::Cache::srcpkgcache', ''),
    ...option('Debug::NoLocking', '1'),
    ...option('Acquire::Languages', 'none'),
    ...option('Acquire::IndexTargets::deb::DEP-11::DefaultEnabled', 'false'),
    ...architectures.flatMap(name => option('APT::Architectures::', name)),
  ];
}

/** apt's arguments for one setting. */
export const option = (name, value) => ['-o', `${name}=${value}`];
/** Root's apt would drop to a user who may not write below root's home. */
export const AS_WE_ARE = option('APT::Sandbox::User', 'root');

/** Downloads `packages` into `folder`; whether it worked. */
async function download(packages, folder, view) {
  const { status } = await run('apt-get', [...AS_WE_ARE, ...view, 'download', '-q', ...packages], { cwd: folder });
  return status === 0;
}

/** A fresh folder in the cache, on the same file system as the place its content goes to. */
export function scratchFolder(cache = cacheDir()) {
  mkdirSync(cache, { recursive: true });
  return mkdtempSync(join(cache, `new-${process.pid}-`)); // whose it is, so that what a killed process left can go
}

/** Puts a finished folder in its place in one step; if another process was first, its work is kept. */
export function putInPlace(from, to) {
  mkdirSync(dirname(to), { recursive: true });
  try {
    renameSync(from, to);
  } catch (error) {
    if (error.code !== 'ENOTEMPTY' && error.code !== 'EEXIST') throw error;
    rmSync(from, { recursive: true });
  }
}

/** Unpacks every `.deb` in `folder` into `root` and deletes it; gives the packages as `name_version`. */
function unpackAll(folder, root) {
  const names = readdirSync(folder).filter(name => name.endsWith('.deb'));
  return unpack(
    names.map(name => join(folder, name)),
    root,
  );
}

/** Unpacks the `.deb`s `files` into `root` and deletes them; gives the packages as `name_version`. */
export async function unpack(files, root) {
  for (const file of files) {
    const { status } = await run('dpkg-deb', ['-x', file, root]);
    if (status !== 0) throw new Error(`dpkg-deb could not unpack ${basename(file)}`);
    rmSync(file);
  }
  return files.map(file => basename(file)).map(name => name.slice(0, name.lastIndexOf('_')));
}

/** Downloads one package with the machine's own lists, else with fresh ones; unpacks it. Undefined if it is not to be had. */
export async function fetchPackage(name, root) {
  const folder = scratchFolder();
  try {
    if (!(await download([name], folder, []))) {
      const view = privateView(join(cacheDir(), 'apt'), [architecture()]);
      await run('apt-get', [...AS_WE_ARE, ...view, 'update', '-q']);
      if (!(await download([name], folder, view))) return undefined;
    }
    return (await unpackAll(folder, root))[0];
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/**
 * Downloads `packages`, with whatever they need that this machine lacks, and `foreign` ones alone (`name:arch`, of
 * `architectures`); unpacks all into `root`. Whether it worked.
 */
export async function fetchClosure(packages, foreign, architectures, root) {
  const folder = scratchFolder();
  const view = [
    ...privateView(join(cacheDir(), 'apt'), [architecture(), ...architectures]),
    ...option('Dir::Cache::archives', folder),
  ];
  try {
    mkdirSync(join(folder, 'partial'));
    await run('apt-get', [...AS_WE_ARE, ...view, 'update', '-q']);
    const install = ['install', '--download-only', '--reinstall', '-y', '-q', '--no-install-recommends', ...packages];
    const { status } = await run('apt-get', [...AS_WE_ARE, ...view, ...install]);
    if (status !== 0 || !(await download(foreign, folder, view))) return false;
    await unpackAll(folder, root);
    return true;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** This machine's architecture by Debian's name. */
export function architecture() {
  return output('dpkg', ['--print-architecture']);
}
