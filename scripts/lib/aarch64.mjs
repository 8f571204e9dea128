// A compiler that can check the code for aarch64: the ordinary one where it has that target (`rustup target add`), else
// Debian's, whose standard library for arm64 is a package; unpacked into the cache, as all of it is.
import { chmodSync, existsSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fetchClosure, putInPlace, scratchFolder } from './debs.mjs';
import { cacheDir } from './paths.mjs';
import { output } from './run.mjs';
import { say } from './say.mjs';
import { hasApt } from './system.mjs';

export const TARGET = 'aarch64-unknown-linux-gnu';
const FOLDER = 'rust-aarch64';
const DEBIAN = '/usr/bin/rustc';

/** The environment for `cargo check --target`: `{ env }`, or `{ reason }` where there is no such compiler. */
export async function aarch64Compiler() {
  if (hasTarget('rustc')) return { env: {} };
  const cached = join(cacheDir(), FOLDER, 'rustc');
  const found = [DEBIAN, cached].find(hasTarget);
  if (found) return { env: { RUSTC: found } };
  rmSync(join(cacheDir(), FOLDER), { recursive: true, force: true }); // it needs a library that has since gone
  if ((await fetchCompiler()) && hasTarget(cached)) return { env: { RUSTC: cached } };
  const rustup = `rustup target add ${TARGET}`;
  return { reason: `no standard library for ${TARGET}, neither rustup's (${rustup}) nor Debian's (rustc-web)` };
}

/** Whether this rustc has a standard library for the target. */
function hasTarget(rustc) {
  const folder = output(rustc, ['--print=target-libdir', `--target=${TARGET}`]);
  return folder !== undefined && existsSync(folder) && readdirSync(folder).some(name => name.startsWith('libcore-'));
}

/** Unpacks Debian's rustc for this machine and its standard library for arm64 side by side; whether it worked. */
async function fetchCompiler() {
  if (!hasApt()) return false;
  say('aarch64: fetching a compiler for it into the cache (130 MB, once)');
  const root = scratchFolder();
  try {
    const host = ['rustc-web', 'libstd-rust-web-dev'];
    if (!(await fetchClosure(host, ['libstd-rust-web-dev:arm64'], ['arm64'], root))) return false;
    writeWrapper(root);
    putInPlace(root, join(cacheDir(), FOLDER));
    return true;
  } finally {
    rmSync(root, { recursive: true, force: true });
  }
}

/** A `rustc` that finds its own libraries and no one else's, wherever the cache is. */
function writeWrapper(root) {
  const triplet =
    output('gcc', ['-print-multiarch']) ?? `${process.arch === 'x64' ? 'x86_64' : process.arch}-linux-gnu`;
  const lines = [
    '#!/bin/sh',
    'here=$(dirname "$(readlink -f "$0")")',
    `LD_LIBRARY_PATH=$here/usr/lib/${triplet}\${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} exec "$here/usr/bin/rustc" --sysroot "$here/usr" "$@"`,
  ];
  writeFileSync(join(root, 'rustc'), `${lines.join('\n')}\n`);
  chmodSync(join(root, 'rustc'), 0o755);
}
