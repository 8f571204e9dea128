// The initial RAM disk of one run: init, busybox, hold and the command, and the kernel's modules from the cache.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ROOT } from '../../scripts/lib/paths.mjs';
import { newcArchive } from './newc.mjs';

/**
 * Writes `folder`/initrd and gives its path. `given` is `{ modules, busybox, hold }` (files; `modules` may be absent),
 * `env` the variables for init, `shares` `{ path, mode }`, `command` a shell script.
 */
export function writeInitrd(folder, { modules, busybox, hold }, { env, shares, command }) {
  const files = {
    init: readFileSync(join(ROOT, 'lab/init')),
    'bin/busybox': readFileSync(busybox),
    'lab/hold': readFileSync(hold),
    'lab/env': lines(Object.entries(env).map(([name, value]) => `${name}=${shellWord(value)}`)),
    'lab/shares': lines(shares.map(({ path, mode }, index) => `${index} ${mode} ${path}`)),
    'lab/command': command,
  };
  const file = join(folder, 'initrd');
  const archive = newcArchive(files, ['init', 'bin/busybox', 'lab/hold']);
  // The kernel unpacks one archive after the other.
  writeFileSync(file, modules ? Buffer.concat([archive, readFileSync(modules)]) : archive);
  return file;
}

function lines(all) {
  return all.map(line => `${line}\n`).join('');
}

/** One word for a shell, whatever is in it. */
export function shellWord(text) {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}

/** A script that runs `words` in `folder` with `env`; a command that is not there is named. */
export function commandScript(words, folder, env) {
  const exports = Object.entries(env).map(([name, value]) => `export ${name}=${shellWord(value)}\n`);
  const command = shellWord(words[0]);
  return [
    ...exports,
    `cd ${shellWord(folder)} || exit 125\n`,
    `command -v ${command} >/dev/null || { echo "lab: no such command in this machine:" ${command} >&2; exit 127; }\n`,
    `exec ${words.map(shellWord).join(' ')}\n`,
  ].join('');
}
