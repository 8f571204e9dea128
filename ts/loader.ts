/**
 * The native addon, loaded and attached at first use: importing the package never throws. Looked for in this order:
 * `TYPEVISOR_NATIVE_PATH`, a build of this checkout, the optional package for this platform.
 */

import { createRequire } from 'node:module';
import { call, messageOf, TypevisorError } from './errors.ts';
import { deliver } from './mailbox.ts';
import type { Binding, NativeEnvironment } from './native.ts';

const PREBUILT: readonly string[] = ['x64-gnu', 'arm64-gnu', 'x64-musl', 'arm64-musl'];

const require = createRequire(import.meta.url);
let binding: Binding | undefined;
let attached: NativeEnvironment | undefined;

/**
 * The addon.
 *
 * @throws {TypevisorError} `ERR_LOAD`, with cause and remedy.
 */
export function native(): Binding {
  return (binding ??= load());
}

/**
 * This thread's side of the addon, attached once.
 *
 * @throws {TypevisorError} `ERR_LOAD`, or what the addon refuses.
 */
export function environment(): NativeEnvironment {
  const addon = native();
  return (attached ??= call(() => addon.attach(deliver)));
}

function load(): Binding {
  const { platform, arch, env } = process;
  const override = env['TYPEVISOR_NATIVE_PATH'];
  if (override !== undefined && override !== '') return open(override, 'TYPEVISOR_NATIVE_PATH names it');
  if (platform !== 'linux') {
    throw new TypevisorError(
      'ERR_LOAD',
      `Typevisor needs Linux with KVM; this is ${platform}-${arch}. Run it on a Linux host, or in a Linux VM with nested virtualization.`,
    );
  }
  const triple = `${arch}-${glibcVersion() === undefined ? 'musl' : 'gnu'}`;
  const local = `../native/typevisor.linux-${triple}.node`;
  const name = `typevisor-linux-${triple}`;
  const notLocal = whyAbsent(local);
  if (notLocal === undefined) return open(local, 'built in this checkout');
  const notInstalled = whyAbsent(name);
  if (notInstalled === undefined) {
    refuseVersionSkew(name);
    return open(name, 'the optional package');
  }
  throw new TypevisorError('ERR_LOAD', remedy(triple, name), { cause: new AggregateError([notLocal, notInstalled]) });
}

function whyAbsent(id: string): unknown {
  try {
    require.resolve(id);
    return undefined;
  } catch (error) {
    return error;
  }
}

function open(id: string, origin: string): Binding {
  let addon: Binding;
  try {
    addon = require(id);
  } catch (cause) {
    const { arch, version } = process;
    throw new TypevisorError(
      'ERR_LOAD',
      `${id} (${origin}) cannot be loaded on linux-${arch}, Node.js ${version}, glibc ${glibcVersion() ?? 'none'}: ` +
        `${messageOf(cause)}. Reinstall typevisor on this machine, or rebuild it (npm run build:native).`,
      { cause },
    );
  }
  const wanted = ownVersion();
  if (typeof addon.version === 'function' && addon.version() === wanted) return addon;
  throw new TypevisorError('ERR_LOAD', `${id} (${origin}) is not the addon of Typevisor ${wanted}`);
}

interface Manifest {
  version: string;
}

function refuseVersionSkew(name: string): void {
  const wanted = ownVersion();
  const { version }: Manifest = require(`${name}/package.json`);
  if (version === wanted) return;
  throw new TypevisorError(
    'ERR_LOAD',
    `${name} is ${version} but typevisor is ${wanted}. Run: npm install typevisor@${wanted} ${name}@${wanted}`,
  );
}

function ownVersion(): string {
  const { version }: Manifest = require('../package.json');
  return version;
}

function remedy(triple: string, name: string): string {
  if (!PREBUILT.includes(triple)) {
    return (
      `There is no prebuilt addon for linux-${triple} (there is for ${PREBUILT.join(', ')}). ` +
      'Build it from source and set TYPEVISOR_NATIVE_PATH to the .node file.'
    );
  }
  return (
    `The native addon is not there: neither built in this checkout (npm run build:native) nor installed as ${name}. ` +
    'Optional dependencies were left out (--omit=optional, a lockfile from another platform, a copied node_modules). ' +
    `Run: npm install ${name}@${ownVersion()}`
  );
}

interface Report {
  excludeNetwork: boolean;
  getReport(): { header: { glibcVersionRuntime?: string } };
}

/** The running glibc; `undefined` on musl. */
function glibcVersion(): string | undefined {
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- @types/node knows neither member
  const report = process.report as unknown as Report;
  const { excludeNetwork } = report;
  report.excludeNetwork = true; // no reverse look-ups of open sockets, which may take seconds
  try {
    return report.getReport().header.glibcVersionRuntime;
  } finally {
    report.excludeNetwork = excludeNetwork;
  }
}
