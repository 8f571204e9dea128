// Where things lie: the repository, and the cache that outlives it.
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The repository's top folder. */
export const ROOT = resolve(fileURLToPath(import.meta.url), '../../..');

/** `${XDG_CACHE_HOME:-~/.cache}/typevisor`: downloads, unpacked and never installed. */
export function cacheDir(env = process.env) {
  const base = env.XDG_CACHE_HOME || join(env.HOME || homedir(), '.cache');
  return join(base, 'typevisor');
}

/** A path as a person would type it: relative inside the repository, else with `~` for the home folder. */
export function shown(path, env = process.env) {
  if (path.startsWith(`${ROOT}/`)) return path.slice(ROOT.length + 1);
  const home = env.HOME || homedir();
  return path.startsWith(`${home}/`) ? `~${path.slice(home.length)}` : path;
}
