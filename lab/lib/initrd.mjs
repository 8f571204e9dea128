// The initial RAM disk of one run: the kernel's modules from the cache, and over them init, busybox, hold and the command.
import { spawnSync } from 'node:child_process';
import { appendFileSync, chmodSync, copyFileSync, cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ROOT } from '../../scripts/lib/paths.mjs';
import { Stop } from '../../scripts/lib/say.mjs';

/**
 * Writes `folder`/initrd and gives its path. `given` is `{ modules, busybox, hold }` (files; `modules` may be absent),
 * `env` the variables for init, `shares` `{ path, mode }`, `command` a shell script.
 */
export function writeInitrd(folder, { modules, busybox, hold }, { env, shares, command }) {
  const tree = join(folder, 'initrd.d');
  for (const name of ['bin', 'lab', 'm']) mkdirSync(join(tree, name), { recursive: true });
  copyFileSync(join(ROOT, 'lab/init'), join(tree, 'init'));
  cpSync(busybox, join(tree, 'bin/busybox'));
  cpSync(hold, join(tree, 'lab/hold'));
  for (const name of ['init', 'bin/busybox', 'lab/hold']) chmodSync(join(tree, name), 0o755);
  writeFileSync(
    join(tree, 'lab/env'),
    Object.entries(env)
      .map(([name, value]) => `${name}=${shellWord(value)}\n`)
      .join(''),
  );
  writeFileSync(join(tree, 'lab/shares'), shares.map(({ path, mode }, index) => `${index} ${mode} ${path}\n`).join(''));
  writeFileSync(join(tree, 'lab/command'), command);
  const file = join(folder, 'initrd');
  writeFileSync(file, archive(tree));
  if (modules) appendFileSync(file, readFileSync(modules)); // the kernel unpacks one archive after the other
  return file;
}

/** A folder as a newc archive. */
function archive(folder) {
  const list = spawnSync('find', ['.', '-print0'], { cwd: folder, maxBuffer: 1 << 20 });
  const options = ['--null', '-o', '-H', 'newc', '-R', '0:0', '--quiet'];
  const made = spawnSync('cpio', options, { cwd: folder, input: list.stdout, maxBuffer: 64 << 20 });
  if (made.status !== 0) throw new Stop(`lab: cpio failed: ${made.error?.message ?? made.stderr}`);
  return made.stdout;
}

/** One word for a shell, whatever is in it. */
export function shellWord(text) {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}

/** A script that runs `words` in `folder` with `env`. */
export function commandScript(words, folder, env) {
  const exports = Object.entries(env).map(([name, value]) => `export ${name}=${shellWord(value)}\n`);
  return `${exports.join('')}cd ${shellWord(folder)} || exit 125\nexec ${words.map(shellWord).join(' ')}\n`;
}
