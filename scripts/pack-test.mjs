#!/usr/bin/env node
// node scripts/pack-test.mjs [--keep]
//
// Installs Typevisor as a user does: packs the package and the addon's package for this machine, serves both from a
// registry on 127.0.0.1, runs `npm install typevisor` in an empty folder with no Rust on PATH, imports it both ways
// (import and require) and runs a guest. Also holds the tarballs to what belongs in them.
//
// Exit code 0 if all went well, 77 if all but the guest did, as /dev/kvm cannot be used here, else 1.
//   --keep   leave the folder for a look
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { kvmProblem } from './lib/kvm.mjs';
import { ROOT } from './lib/paths.mjs';
import { serveRegistry } from './lib/registry.mjs';
import { output, run } from './lib/run.mjs';
import { Stop, main, say } from './lib/say.mjs';
import { filesBelow } from './lib/stale.mjs';

/** What the main package may hold, and nothing else. */
const BELONGS =
  /^(package\.json|README\.md|CHANGELOG\.md|LICENSE-(MIT|APACHE)|dist\/.+\.(js|js\.map|d\.ts|d\.ts\.map))$/;

/** `hlt` at the reset vector: the smallest guest there is. On aarch64 vCPUs start elsewhere; there, a VM is made. */
const GUEST = `
  const vm = Vm.create();
  try {
    if (process.arch === 'x64') {
      vm.memory.map({ gpa: 0xffff_f000, size: 4 * KiB });
      vm.memory.write(0xffff_fff0, Uint8Array.of(0xf4));
      const exit = await vm.createVcpu().run({ signal: AbortSignal.timeout(10_000) });
      if (exit.kind !== 'hlt') throw new Error('the guest ended with ' + exit.kind);
    }
  } finally { vm.close(); }
`;
const USES = {
  import: "import { KiB, Vm, doctor } from 'typevisor';\n",
  require: "const { KiB, Vm, doctor } = require('typevisor');\n",
};

await main(import.meta.url, async args => {
  const { status } = await run('node', ['scripts/ensure.mjs', 'npm', 'native', 'ts']);
  if (status !== 0) throw new Stop('pack-test: the set-up failed', status ?? 1);
  const folder = mkdtempSync(join(tmpdir(), 'typevisor-pack-'));
  try {
    return await packAndUse(folder);
  } finally {
    if (args.includes('--keep')) say(`kept: ${folder}`);
    else rmSync(folder, { recursive: true, force: true });
  }
});

async function packAndUse(folder) {
  const stage = join(folder, 'stage');
  await assemble(stage);
  const tarballs = [stage, join(stage, 'npm', platform())].map(from => pack(from, folder));
  const registry = await serveRegistry(tarballs);
  const home = join(folder, 'home');
  const bareEnv = consumerEnvironment(folder, home);
  try {
    await must('npm', ['install', 'typevisor', `--registry=${registry.url}`, '--no-audit', '--no-fund'], {
      cwd: home,
      bareEnv,
    });
  } finally {
    registry.close();
  }
  const noKvm = kvmProblem();
  for (const [way, line] of Object.entries(USES)) await use(way, line + body(noKvm), home, bareEnv);
  if (noKvm) say(`no guest was run: ${noKvm}`);
  console.log(
    `pack-test: ${tarballs.map(file => basename(file)).join(', ')}: installed, ${noKvm ? 'imported' : 'imported, a guest ran'}`,
  );
  return noKvm ? 77 : 0;
}

/** Runs one small program in the consumer's folder. */
async function use(way, text, cwd, bareEnv) {
  const file = `${way}.${way === 'import' ? 'mjs' : 'cjs'}`;
  writeFileSync(join(cwd, file), text);
  await must('node', [file], { cwd, bareEnv });
  say(`pack-test: ${way}: ok`);
}

/** doctor() loads the addon, with KVM or without. */
function body(noKvm) {
  return `(async () => {\n  doctor();\n${noKvm ? '' : GUEST}})().catch(error => { console.error(error); process.exit(1); });\n`;
}

/** Lays out what is published, in a copy: napi's prepublish writes into package.json. */
async function assemble(stage) {
  mkdirSync(stage);
  const parts = ['package.json', 'README.md', 'CHANGELOG.md', 'LICENSE-MIT', 'LICENSE-APACHE', 'dist', 'npm'];
  for (const part of parts)
    if (existsSync(join(ROOT, part))) cpSync(join(ROOT, part), join(stage, part), { recursive: true });
  const napi = join(ROOT, 'node_modules/.bin/napi');
  for (const other of readdirSync(join(stage, 'npm'))) {
    const addon = join('npm', other, `typevisor.${other}.node`);
    if (other === platform()) copyFileSync(join(ROOT, 'native', basename(addon)), join(stage, addon));
    else writeFileSync(join(stage, addon), 'not built on this machine'); // prepublish wants all; it is not served
  }
  await must(napi, ['prepublish', '-t', 'npm', '--no-gh-release', '--skip-optional-publish'], { cwd: stage });
}

/** This machine's name among the addon's packages, as its built addon bears it. */
function platform() {
  const addon = filesBelow(['native']).find(name => name.includes(`.linux-${process.arch}-`) && name.endsWith('.node'));
  return basename(addon).split('.')[1];
}

/** Packs the package in `from` into `folder`; gives the tarball's path. Stops if it holds what does not belong there. */
function pack(from, folder) {
  const text = output('npm', ['pack', '--json', '--pack-destination', folder], { cwd: from });
  if (text === undefined) throw new Stop(`npm pack failed in ${from}`);
  const packed = JSON.parse(text);
  const [{ name, filename, files }] = Array.isArray(packed) ? packed : Object.values(packed);
  const belongs = name === 'typevisor' ? BELONGS : /^(package\.json|README\.md|LICENSE-(MIT|APACHE)|.*\.node)$/;
  const strange = files.filter(({ path }) => !belongs.test(path)).map(({ path }) => path);
  if (strange.length > 0) throw new Stop(`${name}: does not belong in the tarball: ${strange.join(', ')}`);
  const local = files.filter(({ path }) => readFileSync(join(from, path)).includes(`${ROOT}/`)).map(({ path }) => path);
  if (local.length > 0)
    say(`pack-test: ${name}: holds this folder's path (a release build remaps it): ${local.join(', ')}`);
  return join(folder, filename);
}

/** An empty home, and on PATH no more than Node.js and the system's basics: no Rust, no compiler. */
function consumerEnvironment(folder, home) {
  const bin = join(folder, 'bin');
  mkdirSync(home);
  mkdirSync(bin);
  symlinkSync(process.execPath, join(bin, 'node'));
  symlinkSync(npmProgram(), join(bin, 'npm'));
  for (const tool of ['sh', 'env']) symlinkSync(output('sh', ['-c', `command -v ${tool}`]), join(bin, tool));
  writeFileSync(join(home, 'package.json'), '{ "private": true }\n');
  return { HOME: home, XDG_CACHE_HOME: join(home, '.cache'), PATH: bin, npm_config_cache: join(home, '.npm') };
}

/** npm's own file, which finds its library beside itself. */
function npmProgram() {
  const besideNode = join(dirname(process.execPath), 'npm');
  return existsSync(besideNode) ? besideNode : output('sh', ['-c', 'command -v npm']);
}

async function must(command, args, options) {
  const { status, signal } = await run(command, args, options);
  if (status !== 0)
    throw new Stop(`pack-test: ${basename(command)} ${args.join(' ')}: ${signal ?? `exit code ${status}`}`);
}
