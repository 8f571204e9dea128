#!/usr/bin/env node
// node scripts/fresh-clone.mjs root | user [--working-tree] [--keep]
//
// Proves the README's two commands as a newcomer meets them: clones the repository into an empty folder, runs
// `npm start` and `npm test` there with an empty home and cache, and compares their exit codes with what is promised:
// 0 and 0 where /dev/kvm can be used; else 69 with the doctor's remedy, and then 0 where QEMU is installed (the tests run
// in the lab), 1 with "no KVM tested" where it is not. TYPEVISOR_LAB_IMAGE is handed on.
//
//   root            as the user who runs this
//   user            as another, unprivileged one, made for this and deleted afterwards (needs root)
//   --working-tree  the files as they lie here, committed or not, instead of HEAD
//   --keep          leave the folder for a look
import { spawnSync } from 'node:child_process';
import { chmodSync, cpSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { emulator } from '../lab/lib/qemu.mjs';
import { hostArch } from '../lab/machines.mjs';
import { ROOT } from './lib/paths.mjs';
import { output, run } from './lib/run.mjs';
import { Stop, main, say } from './lib/say.mjs';

const USER = `typevisor-${process.pid}`;
/** What each command ends with, and something it must say near its end. */
const WITH_KVM = [
  { args: ['start'], code: 0, says: /SeaBIOS/ },
  { args: ['test'], code: 0, says: /^\d+ passed, 0 failed, \d+ skipped$/ },
];
const WITHOUT_KVM = { args: ['start'], code: 69, says: /→ run: / };
const WITH_LAB_ONLY = [WITHOUT_KVM, { args: ['test'], code: 0, says: /^\d+ passed, 0 failed, \d+ skipped$/ }];
const WITHOUT_BOTH = [WITHOUT_KVM, { args: ['test'], code: 1, says: /^no KVM tested: / }];

await main(import.meta.url, async args => {
  const [who] = args;
  if (!['root', 'user'].includes(who)) throw new Stop('say as whom: root or user (see --help)', 2);
  if (who === 'user' && process.getuid() !== 0) throw new Stop('making another user needs root', 77);
  const home = mkdtempSync(join(tmpdir(), 'typevisor-clone-'));
  process.on('exit', () => leave(who, home, args.includes('--keep'))); // interrupted or not
  chmodSync(home, 0o755);
  if (who === 'user') must('useradd', ['--no-create-home', '--home-dir', home, USER]);
  return prove(who, home, args.includes('--working-tree'));
});

function leave(who, home, keep) {
  if (who === 'user') spawnSync('userdel', ['--force', USER], { stdio: 'ignore' });
  if (keep) say(`kept: ${home}`);
  else rmSync(home, { recursive: true, force: true });
}

async function prove(who, home, workingTree) {
  const clone = join(home, 'typevisor');
  if (workingTree) copyTree(clone);
  else must('git', ['clone', '-q', '--no-hardlinks', ROOT, clone]);
  const env = environment(home, who === 'user' ? readableRust(home) : undefined);
  if (who === 'user') {
    must('chown', ['-R', '--no-dereference', `${USER}:`, clone]);
    must('chown', [`${USER}:`, home]);
  }
  const drop = ['setpriv', '--reuid', USER, '--regid', USER, '--clear-groups'];
  const as = (...words) => {
    const [command, ...args] = who === 'user' ? [...drop, ...words] : words;
    return [command, args];
  };
  const probe = `import('./scripts/lib/kvm.mjs').then(kvm => process.exit(kvm.kvmProblem() ? 1 : 0))`;
  const hasKvm = spawnSync(...as('node', '-e', probe), { cwd: clone, env }).status === 0;
  const hasLab = output(emulator(hostArch()), ['--version']) !== undefined;
  const withoutKvm = hasLab ? WITH_LAB_ONLY : WITHOUT_BOTH;
  const promises = hasKvm ? WITH_KVM : withoutKvm;
  let kept = true;
  for (const promise of promises) kept = (await newcomer(promise, as('npm', ...promise.args), clone, env)) && kept;
  return kept ? 0 : 1;
}

/** Runs one command; whether it ended and spoke as promised. */
async function newcomer({ args: words, code, says }, [command, args], cwd, bareEnv) {
  const title = `npm ${words.join(' ')}`;
  say(`\n══ ${title}`);
  const { status, signal, tail } = await run(command, args, { cwd, bareEnv });
  const good = status === code && tail.some(line => says.test(line));
  console.log(`${title}: exit code ${status ?? signal}, expected ${code}: ${good ? 'as promised' : 'NOT as promised'}`);
  return good;
}

/** Little more than a login shell's environment, and what leads to the network here. */
function environment(home, rust) {
  const kept = Object.entries(process.env).filter(([name]) =>
    /^(LANG|TERM|CI|TZ|TYPEVISOR_LAB_IMAGE)$|_proxy$|_CA_|_CERT/i.test(name),
  );
  const tools = rust ? [join(rust, 'bin'), dirname(process.execPath)] : [];
  const system = ['/usr/local/sbin', '/usr/local/bin', '/usr/sbin', '/usr/bin', '/sbin', '/bin'];
  const path = rust ? [...tools, ...system].join(':') : process.env.PATH;
  const rustup = rust ? {} : { RUSTUP_HOME: process.env.RUSTUP_HOME ?? join(process.env.HOME, '.rustup') };
  return { ...Object.fromEntries(kept), ...rustup, HOME: home, PATH: path };
}

/** The Rust toolchain in use where another user may read it: links to its files, or copies on another disk. */
function readableRust(home) {
  const sysroot = output('rustc', ['--print', 'sysroot']);
  if (sysroot === undefined) throw new Stop('rustc is not to be found');
  const to = join(home, 'rust');
  if (spawnSync('cp', ['-aL', '--link', sysroot, to], { stdio: 'ignore' }).status !== 0) {
    rmSync(to, { recursive: true, force: true });
    must('cp', ['-aL', sysroot, to]);
  }
  return to;
}

function copyTree(clone) {
  const listed = output('git', ['ls-files', '--cached', '--others', '--exclude-standard', '-z']) ?? '';
  for (const file of new Set(listed.split('\0').filter(Boolean)))
    cpSync(join(ROOT, file), join(clone, file), { preserveTimestamps: false });
  must('git', ['init', '-q', clone]);
}

function must(command, args) {
  const { status, error } = spawnSync(command, args, { stdio: ['ignore', 'inherit', 'inherit'] });
  if (status !== 0) throw new Stop(`${command} ${args.join(' ')}: ${error?.message ?? `exit code ${status}`}`);
}
