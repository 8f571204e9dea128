// What a build needs from the machine: Node.js, Rust and a C compiler (the linker).
import { existsSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { output } from './run.mjs';
import { Stop } from './say.mjs';
import { hasApt, installPackages } from './system.mjs';
import { atLeast, versionIn } from './versions.mjs';

const NODE = [20, 19];
const RUST = [1, 88];
/** Debian's names for cargo and rustc, in the order of preference; the second is its newer build. */
const RUST_PACKAGES = [
  ['cargo', 'rustc'],
  ['cargo-web', 'rustc-web'],
];

/** Checks the Node.js that runs this script; gives its version. */
export function node() {
  const { version } = process;
  if (!atLeast(versionIn(version), NODE)) {
    throw new Stop(`Node.js ${NODE.join('.')} or newer is needed, this is ${version}. Install it: https://nodejs.org`);
  }
  return `Node ${version.slice(1)}`;
}

/** Checks cargo and rustc, installing them if that is possible; gives the version. */
export async function rust() {
  rustupOnPath();
  const found = rustVersion();
  if (found && atLeast(found, RUST)) return `Rust ${found.join('.')}`;
  const why = found
    ? `Rust ${RUST.join('.')} or newer is needed, this is ${found.join('.')}`
    : `Rust ${RUST.join('.')} or newer is needed (cargo and rustc are not on PATH)`;
  if (found && hasRustup()) throw new Stop(`${why}. Run: rustup update stable`);
  const packages = hasApt() ? RUST_PACKAGES.find(isRecent) : undefined;
  if (!packages) throw new Stop(`${why}. Install it: https://rustup.rs`);
  await installPackages(packages, why);
  const now = rustVersion();
  if (!now || !atLeast(now, RUST))
    throw new Stop(`${why}; ${packages.join(', ')} did not change that. Install it: https://rustup.rs`);
  return `Rust ${now.join('.')}`;
}

/** Checks for a C compiler with a C library's start files, installing them if that is possible; gives its name. */
export async function compiler() {
  const found = usableCompiler();
  if (found) return found;
  const why = 'a C compiler is needed (cc, gcc or clang, with the C library to link with)';
  if (!hasApt()) throw new Stop(`${why}. Install it with your system's package manager.`);
  await installPackages(['gcc', 'libc6-dev'], why);
  return usableCompiler() ?? 'cc';
}

/** The environment a cargo call needs beyond the ordinary: a linker's name where `cc` is not it. */
export function cargoEnv() {
  rustupOnPath();
  const name = usableCompiler();
  if (!name || name === 'cc') return {};
  const host = /host: (\S+)/.exec(output('rustc', ['-vV']) ?? '')?.[1] ?? '';
  return { [`CARGO_TARGET_${host.toUpperCase().replaceAll('-', '_')}_LINKER`]: name };
}

function usableCompiler() {
  return ['cc', 'gcc', 'clang'].find(name => output(name, ['-print-file-name=crt1.o'])?.includes('/'));
}

function rustVersion() {
  const cargo = versionIn(output('cargo', ['--version']));
  const rustc = versionIn(output('rustc', ['--version']));
  if (!cargo || !rustc) return undefined;
  return atLeast(rustc, cargo) ? cargo : rustc;
}

function hasRustup() {
  return output('rustup', ['--version'], { stdio: ['ignore', 'pipe', 'ignore'] }) !== undefined;
}

/** A rustup that was installed without touching the shell's profile is found all the same. */
function rustupOnPath() {
  const bin = join(process.env.CARGO_HOME || join(homedir(), '.cargo'), 'bin');
  const path = process.env.PATH ?? '';
  if (existsSync(join(bin, 'cargo')) && !path.split(':').includes(bin)) process.env.PATH = `${path}:${bin}`;
}

function isRecent(packages) {
  const policy = output('apt-cache', ['policy', packages[0]]);
  const candidate = versionIn(/Candidate: (.*)/.exec(policy ?? '')?.[1]);
  return candidate !== undefined && atLeast(candidate, RUST);
}
