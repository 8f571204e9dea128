// Is a build still that of its sources? By content: a fresh clone or a changed branch touches times, not bytes.
import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, readdirSync, renameSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { ROOT } from './paths.mjs';

/** All files below `paths` (files or folders, relative to `root`), sorted; what does not exist is left out. */
export function filesBelow(paths, root = ROOT) {
  /** @type {string[]} */
  const found = [];
  for (const path of paths) {
    const stat = statSync(join(root, path), { throwIfNoEntry: false });
    if (stat?.isFile()) found.push(path);
    if (!stat?.isDirectory()) continue;
    for (const entry of readdirSync(join(root, path), { recursive: true, withFileTypes: true })) {
      if (entry.isFile()) found.push(join(entry.parentPath ?? entry.path, entry.name).slice(root.length + 1));
    }
  }
  return found.toSorted();
}

/** One number for the names and contents of all files below `paths`. */
export function fingerprint(paths, extra = '', root = ROOT) {
  const hash = createHash('sha256').update(extra);
  for (const file of filesBelow(paths, root)) hash.update(`\0${file}\0`).update(readFileSync(join(root, file)));
  return hash.digest('hex');
}

/** A note of what `output` (a file) was built from. A build made by hand since then makes it stale, and is repeated. */
export class Stamp {
  constructor(name, output, root = ROOT) {
    this.file = join(root, 'target/set-up', `${name}.json`);
    this.output = join(root, output);
  }

  isFresh(inputs) {
    try {
      const noted = JSON.parse(readFileSync(this.file, 'utf8'));
      return noted.inputs === inputs && noted.output === this.#seen();
    } catch {
      return false;
    }
  }

  write(inputs) {
    mkdirSync(dirname(this.file), { recursive: true });
    writeFileSync(`${this.file}.new`, JSON.stringify({ inputs, output: this.#seen() }));
    renameSync(`${this.file}.new`, this.file);
  }

  #seen() {
    const { mtimeMs, size } = statSync(this.output);
    return `${mtimeMs} ${size}`;
  }
}
