// The test suite in the form in which a machine of the lab can run it: plain JavaScript for any Node.js without a
// package, Rust's test binaries and the addon for its processor. What runs it there is lab/suite/run.mjs.
//
//   target/lab/suite/js/              ts/, __test__/ and examples/, compiled; `ava` there is lab/suite/ava.mjs
//   target/lab/suite/x86_64/          core-unit, core-kvm, typevisor.node, typevisor-hooks.node
//   target/lab/suite/aarch64/         the same, cross-built where the host is no aarch64
import { chmodSync, cpSync, mkdirSync, readdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { TARGET, aarch64Compiler } from '../../scripts/lib/aarch64.mjs';
import { withLock } from '../../scripts/lib/lock.mjs';
import { ROOT } from '../../scripts/lib/paths.mjs';
import { output, run } from '../../scripts/lib/run.mjs';
import { Stop, say } from '../../scripts/lib/say.mjs';
import { Stamp, fingerprint } from '../../scripts/lib/stale.mjs';
import { installPackages } from '../../scripts/lib/system.mjs';
import { cargoEnv } from '../../scripts/lib/toolchain.mjs';

const SUITE = 'target/lab/suite';
const JS = join(ROOT, SUITE, 'js');
/** Node's name for each architecture. */
const NODE_ARCH = { x86_64: 'x64', aarch64: 'arm64' };
const FIXTURES = '__test__/fixtures';
/** The generated program of all `@example`s; `exampleProgram` in __test__/helpers/examples.ts knows it too. */
const EXAMPLES = `${SUITE}/generated/examples.ts`;
const LINKER = 'aarch64-linux-gnu-gcc';

/** Why the suite cannot be built for `arch` here; undefined where it can. */
export function whyNotBuilt(arch) {
  if (NODE_ARCH[arch] === process.arch || arch === 'aarch64') return undefined;
  return `the tests for ${arch} can be built on ${arch} only`;
}

/** What programs of the repository need in a machine with that processor: the addon in native/, and dist/. */
export async function buildFor(arch) {
  await must('the addon and dist/', process.execPath, ['scripts/ensure.mjs', 'npm', 'native', 'ts']);
  if (NODE_ARCH[arch] !== process.arch) await foreignAddon(arch);
}

/** The addon for a processor that is not the host's, in native/, where the facade finds it; gives its path. */
async function foreignAddon(arch) {
  const file = `native/typevisor.linux-${NODE_ARCH[arch]}-gnu.node`;
  const stamp = new Stamp(`lab-addon-${arch}`, file);
  const inputs = fingerprint(['crates', 'Cargo.toml', 'Cargo.lock']);
  if (!stamp.isFresh(inputs)) {
    say(`lab: building the addon for ${arch} (a minute or two, once)`);
    copy(await crossAddon(arch, [], await crossBuild(arch)), join(ROOT, file));
    stamp.write(inputs);
  }
  return join(ROOT, file);
}

/** Builds what is stale of the suite for machines of `arch`; gives the folder where it lies. */
export async function buildSuite(arch) {
  if (!Object.hasOwn(NODE_ARCH, arch)) throw new Error(`no such architecture: ${arch}`);
  return withLock(join(ROOT, SUITE), sayWaiting, async () => {
    await must('the host’s own builds', process.execPath, ['scripts/ensure.mjs', 'npm', 'native', 'hooks', 'ts']);
    await buildScripts();
    await buildBinaries(arch);
    return join(ROOT, SUITE);
  });
}

function sayWaiting() {
  say('lab: waiting for another build of the suite');
}

/** Runs a command with its output on stderr where it fails; gives its lines on stdout. */
async function must(title, command, args, env) {
  const lines = [];
  const onLine = (line, stream) => (stream === 'stdout' ? lines.push(line) : undefined);
  const { status, signal, tail } = await run(command, args, { env, onLine });
  if (status === 0) return lines;
  for (const line of tail) say(line);
  throw new Stop(`lab: ${title}: failed (${signal ?? status}): ${command} ${args.join(' ')}`);
}

async function buildScripts() {
  const sources = ['ts', '__test__', 'examples', 'lab/suite', 'tsconfig.json', 'package.json', 'package-lock.json'];
  const inputs = fingerprint(sources);
  const stamp = new Stamp('lab-suite-js', `${SUITE}/js/package.json`);
  if (stamp.isFresh(inputs)) return;
  say('lab: compiling the tests');
  rmSync(JS, { recursive: true, force: true }); // no output outlives its source
  mkdirSync(JS, { recursive: true });
  await writeExamples();
  await compile();
  for (const name of readdirSync(join(ROOT, FIXTURES)).filter(file => file.endsWith('.cjs')))
    cpSync(join(ROOT, FIXTURES, name), join(JS, FIXTURES, name));
  placeAva(JS);
  symlinkSync('ts', join(JS, 'dist')); // the package's main file and its command line are of the same sources
  for (const [arch, node] of Object.entries(NODE_ARCH)) linkAddons(arch, node);
  cpSync(join(ROOT, 'package.json'), join(JS, 'package.json'));
  stamp.write(inputs);
}

/** The `@example`s of comments, of which only sources know, as a program to be compiled with the rest. */
async function writeExamples() {
  const up = relative(dirname(join(ROOT, EXAMPLES)), join(ROOT, 'ts/index.ts'));
  const code = `process.stdout.write((await import('./__test__/helpers/examples.ts')).exampleSource('${up}'))`;
  const node = ['--import=@oxc-node/core/register', '--input-type=module', '--eval', code];
  const lines = await must('the examples', process.execPath, node);
  mkdirSync(dirname(join(ROOT, EXAMPLES)), { recursive: true });
  writeFileSync(join(ROOT, EXAMPLES), `${lines.join('\n')}\n`);
}

/** The compiler's settings are the repository's, but for what comes out: no `using`, which Node.js 20 does not know. */
async function compile() {
  const compilerOptions = {
    noEmit: false,
    target: 'es2022',
    rootDir: ROOT,
    outDir: JS,
    declaration: false,
    declarationMap: false,
    sourceMap: false,
    isolatedDeclarations: false,
    noCheck: true, // `npm run check` does that
    typeRoots: [join(ROOT, 'node_modules/@types')],
  };
  const include = ['ts', '__test__', 'examples', EXAMPLES].map(path => join(ROOT, path));
  const file = join(ROOT, SUITE, 'tsconfig.json');
  writeFileSync(file, JSON.stringify({ extends: join(ROOT, 'tsconfig.json'), compilerOptions, include }));
  await must('the tests', process.execPath, [join(ROOT, 'node_modules/typescript/bin/tsc'), '-p', file]);
}

/** Makes our stand-in what `import 'ava'` finds below `folder`; gives the program that runs a test file with it. */
export function placeAva(folder) {
  const place = join(folder, 'node_modules/ava');
  mkdirSync(place, { recursive: true });
  for (const name of ['ava.mjs', 'assertions.mjs']) cpSync(join(ROOT, 'lab/suite', name), join(place, name));
  const manifest = { name: 'ava', version: '0.0.0', type: 'module', exports: './ava.mjs' };
  writeFileSync(join(place, 'package.json'), JSON.stringify(manifest));
  return join(place, 'ava.mjs');
}

/** Where the compiled facade and the test of panics look for the addon. */
function linkAddons(arch, node) {
  for (const [folder, file] of [
    ['native', 'typevisor.node'],
    ['target/hooks', 'typevisor-hooks.node'],
  ]) {
    const link = join(JS, folder, `typevisor.linux-${node}-gnu.node`);
    mkdirSync(dirname(link), { recursive: true });
    symlinkSync(relative(dirname(link), join(ROOT, SUITE, arch, file)), link);
  }
}

async function buildBinaries(arch) {
  const node = NODE_ARCH[arch];
  const inputs = fingerprint(['crates', 'Cargo.toml', 'Cargo.lock', 'lab/suite/build.mjs']);
  const stamp = new Stamp(`lab-suite-${arch}`, `${SUITE}/${arch}/core-kvm`);
  if (stamp.isFresh(inputs)) return;
  say(`lab: building the core's tests and the addon for ${arch} (two minutes or three, once)`);
  const place = join(ROOT, SUITE, arch);
  mkdirSync(place, { recursive: true });
  const { cross, tests } = await buildCore(arch);
  copy(executable(tests, 'lib'), join(place, 'core-unit'));
  for (const [file, hooks] of Object.entries({
    'typevisor.node': [],
    'typevisor-hooks.node': ['--features', 'test-hooks'],
  })) {
    const from = cross ? await foreign(arch, hooks, cross) : hostAddon(hooks.length > 0, node);
    copy(from, join(place, file));
  }
  copy(executable(tests, 'test'), join(place, 'core-kvm'));
  stamp.write(inputs);
}

/** The core's tests: cargo's messages, and how to build for a processor that is not the host's. */
async function buildCore(arch, targets = ['--lib', '--test', 'kvm'], more = {}) {
  const cross = NODE_ARCH[arch] === process.arch ? undefined : await crossBuild(arch);
  const { args, env } = cross ?? { args: [], env: cargoEnv() };
  const core = ['test', '--no-run', '--profile', 'lab', '--package', 'typevisor', ...targets];
  return { cross, tests: await cargo(`the core's tests for ${arch}`, core, { args, env: { ...env, ...more } }) };
}

/** The core's tests of KVM alone, as cargo leaves them: the program's path. `env` is cargo's besides. */
export async function buildKvmTests(arch, env) {
  const { tests } = await buildCore(arch, ['--test', 'kvm'], env);
  return executable(tests, 'test');
}

/** The host's own addon, which `scripts/ensure.mjs` has built. */
function hostAddon(hooks, node) {
  return join(ROOT, hooks ? 'target/hooks' : 'native', `typevisor.linux-${node}-gnu.node`);
}

function foreign(arch, hooks, cross) {
  return hooks.length > 0 ? crossAddon(arch, hooks, cross) : foreignAddon(arch);
}

async function crossAddon(arch, features, cross) {
  const args = ['build', '--profile', 'addon', '--package', 'typevisor-node', ...features];
  const messages = await cargo(`the addon for ${arch}`, args, cross);
  const file = messages
    .find(({ target }) => target?.kind.includes('cdylib'))
    ?.filenames?.find(name => name.endsWith('.so'));
  if (file === undefined) throw new Stop(`lab: cargo built no addon for ${arch}`);
  return file;
}

/** cargo's arguments and environment for a processor that is not the host's. */
async function crossBuild(arch) {
  const why = whyNotBuilt(arch);
  if (why) throw new Stop(`lab: ${why}`);
  const { env, reason } = await aarch64Compiler();
  if (reason) throw new Stop(`lab: the tests for aarch64 need a compiler: ${reason}`);
  if (output(LINKER, ['--version']) === undefined)
    await installPackages(
      ['gcc-aarch64-linux-gnu', 'libc6-dev-arm64-cross'],
      `a linker for aarch64 is needed (${LINKER})`,
    );
  return {
    args: ['--target', TARGET, '--target-dir', join(ROOT, 'target/lab/cargo')],
    env: { ...cargoEnv(), ...env, CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER: LINKER },
  };
}

/** What cargo says it made, message by message. */
async function cargo(title, args, { args: more, env }) {
  const format = '--message-format=json-render-diagnostics';
  const lines = await must(title, 'cargo', [...args, ...more, format], { ...env, CARGO_TERM_COLOR: 'never' });
  return lines.filter(line => line.startsWith('{')).map(line => JSON.parse(line));
}

/** The test binary of that kind of target. */
function executable(messages, kind) {
  const file = messages.find(({ target, executable: path }) => path && target.kind.includes(kind))?.executable;
  if (!file) throw new Stop(`lab: cargo built no test binary of the core's ${kind}`);
  return file;
}

/** A machine that still has the old one open keeps it. */
function copy(from, to) {
  cpSync(from, `${to}.new`);
  chmodSync(`${to}.new`, 0o755);
  renameSync(`${to}.new`, to);
}
