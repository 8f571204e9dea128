// `npm run lab` with a machine that boots: what comes back, and what is left behind where something dies.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
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
import { dirname, join } from 'node:path';
import test from 'node:test';
import { ROOT } from '../../scripts/lib/paths.mjs';
import { machineState } from '../lib/prepare.mjs';
import { storeDir } from '../lib/store.mjs';
import { defaultMachine } from '../machines.mjs';

const machine = defaultMachine();
const { ready, why } = machineState(machine);
const options = { skip: ready ? false : `machine ${machine.id} is not ready: ${why}`, timeout: 120_000 };

/** Starts `npm run lab -- ARGS`; `env` adds to the environment. */
function start(args, env = {}) {
  const child = spawn(process.execPath, ['lab/main.mjs', ...args], {
    cwd: ROOT,
    env: { ...process.env, INIT_CWD: ROOT, TYPEVISOR_SETUP: 'off', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const said = { child, stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr']) child[name].setEncoding('utf8').on('data', text => (said[name] += text));
  return said;
}

/** Runs it to its end. */
async function lab(args, env) {
  const said = start(args, env);
  const [code, signal] = await once(said.child, 'close');
  return { code, signal, stdout: said.stdout, stderr: said.stderr };
}

/** Emulators whose command line has `mark` in it. */
function emulators(mark) {
  return readdirSync('/proc')
    .filter(name => /^\d+$/.test(name))
    .filter(pid => {
      try {
        const line = readFileSync(`/proc/${pid}/cmdline`, 'utf8');
        return line.includes('qemu-system') && line.includes(mark);
      } catch (error) {
        if (['ENOENT', 'ESRCH', 'EACCES'].includes(error.code)) return false;
        throw error;
      }
    });
}

async function untilGone(mark) {
  for (let i = 0; i < 100 && emulators(mark).length > 0; i += 1) await new Promise(done => setTimeout(done, 50));
  return emulators(mark).length === 0;
}

/** A folder of its own; gone after the test. */
function scratch(t) {
  const folder = mkdtempSync(join(tmpdir(), 'typevisor-lab-test-'));
  t.after(() => rmSync(folder, { recursive: true }));
  return folder;
}

test('output, exit code and files come back, and nothing else', options, async () => {
  const script = [
    'echo err >&2',
    'ls /dev/kvm package.json',
    'touch here',
    'date >"$TYPEVISOR_LAB_FILES/there"',
    'seq 1 100000',
    'exit 7',
  ];
  const file = join(ROOT, 'target/lab/files', machine.id, 'there');
  rmSync(file, { force: true });
  const { code, stdout, stderr } = await lab(['--', 'sh', '-c', script.join('; ')]);
  assert.deepEqual({ code, stderr }, { code: 7, stderr: 'err\n' });
  const numbers = Array.from({ length: 100_000 }, (_, index) => index + 1);
  assert.equal(stdout, `/dev/kvm\npackage.json\n${numbers.join('\n')}\n`);
  assert.ok(existsSync(file));
  assert.ok(!existsSync(join(ROOT, 'here')));
});

test('a command that does not exist is named, with exit code 127', options, async () => {
  const { code, stderr } = await lab(['--', 'no-such-command', '--help']);
  assert.equal(code, 127);
  assert.equal(stderr, 'lab: no such command in this machine: no-such-command\n');
});

test('a command that hangs ends at its limit, with the machine', options, async () => {
  const { code, stdout, stderr } = await lab([
    '--timeout',
    '2',
    '--memory',
    '2041',
    '--',
    'sh',
    '-c',
    'echo up; sleep 1000',
  ]);
  assert.equal(code, 124);
  assert.equal(stdout, 'up\n', 'what it had said is not lost');
  assert.match(stderr, /the time was up \(2 s\), and the machine was stopped/);
  assert.ok(await untilGone('2041'));
});

test('a kernel that panics is reported with its text', options, async () => {
  // Out of memory is a panic when asked for: the one way to one that every kernel has. Filled by a program of a few pages: one
  // of many is read again and again, for minutes, before there is nothing left.
  const scarce = 'echo 2 >/proc/sys/vm/panic_on_oom; echo 400000 >/proc/sys/vm/min_free_kbytes';
  const fill =
    'mkdir /tmp/all; mount -t tmpfs -o size=100% none /tmp/all; exec dd if=/dev/zero of=/tmp/all/zeros bs=1M';
  const script = `echo up; ${scarce}; ${fill}`;
  const { code, stdout, stderr } = await lab(['--memory', '512', '--timeout', '100', '--', 'sh', '-c', script]);
  assert.equal(code, 125, stderr);
  assert.equal(stdout, 'up\n');
  assert.match(stderr, /Kernel panic - not syncing: Out of memory/);
  assert.match(stderr, /the kernel panicked/);
});

for (const [signal, status] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
]) {
  test(`${signal} ends it and leaves no machine behind`, options, async () => {
    const mark = signal === 'SIGINT' ? '2042' : '2043';
    const said = start(['--memory', mark, '--', 'sh', '-c', 'echo up; sleep 1000']);
    const closed = once(said.child, 'close');
    while (said.stdout !== 'up\n') await once(said.child.stdout, 'data');
    said.child.kill(signal);
    const [code] = await closed;
    assert.equal(code, status);
    assert.match(said.stderr, /lab: interrupted/);
    assert.ok(await untilGone(mark));
  });
}

test('Ctrl-C before the machine is started ends it as well', options, async () => {
  const said = start(['--memory', '2045', '--', 'sh', '-c', 'echo up; sleep 1000']);
  const closed = once(said.child, 'close');
  while (!existsSync(`/proc/${said.child.pid}/task`)) await new Promise(done => setTimeout(done, 5));
  await new Promise(done => setTimeout(done, 300)); // Node.js has started; parts are being checked, or the addon built
  said.child.kill('SIGINT');
  const [code] = await closed;
  assert.equal(code, 130, said.stderr);
  assert.equal(said.stdout, '');
  assert.ok(await untilGone('2045'));
});

test('a lab that is killed takes its machine along', options, async () => {
  const said = start(['--memory', '2044', '--', 'sh', '-c', 'echo up; sleep 1000']);
  while (said.stdout !== 'up\n') await once(said.child.stdout, 'data');
  said.child.kill('SIGKILL');
  assert.ok(await untilGone('2044'));
});

test('a damaged part in the cache is refused by name, with what to do', options, async t => {
  const cache = scratch(t);
  const copy = join(cache, 'typevisor');
  for (const part of ['tools', 'kernels'].filter(name => existsSync(join(storeDir(), name)))) {
    mkdirSync(join(copy, 'lab'), { recursive: true });
    spawnSync('cp', ['-a', '--reflink=auto', join(storeDir(), part), join(copy, 'lab')]);
  }
  const file = join(copy, 'lab/tools', machine.arch, 'busybox');
  const bytes = readFileSync(file);
  bytes[bytes.length >> 1] ^= 1;
  writeFileSync(file, bytes);
  const { code, stdout, stderr } = await lab(['--', 'true'], { XDG_CACHE_HOME: cache });
  assert.equal(code, 125, stderr);
  assert.equal(stdout, '');
  assert.match(stderr, /busybox: its content has changed since it was fetched/);
  assert.match(stderr, /npm run lab -- prepare/);
});

test('a kernel image that is none does not boot, and the emulator says why', options, async t => {
  if (machine.kernel.kind !== 'lab') return t.skip('this machine has no image of its own');
  const image = join(scratch(t), 'image');
  writeFileSync(image, 'no kernel');
  const { code, stderr } = await lab(['--', 'true'], { TYPEVISOR_LAB_IMAGE: image });
  assert.equal(code, 125);
  assert.match(stderr, /lab: machine lab: the machine died while it booted/);
  return undefined;
});

test('without QEMU the package is named', options, async t => {
  const bin = scratch(t);
  const tools = ['sh', 'setpriv', 'cc', 'gcc', 'apt-get', 'dpkg'];
  for (const tool of tools) {
    const found = String(spawnSync('sh', ['-c', `command -v ${tool}`]).stdout).trim();
    if (found) symlinkSync(found, join(bin, tool));
  }
  const { code, stderr } = await lab(['--', 'true'], {
    PATH: `${bin}:${dirname(process.execPath).replace(/^\/usr\/bin$/, '')}`,
  });
  assert.equal(code, 125, stderr);
  assert.match(stderr, /Install it: .*(qemu-system-x86|qemu-system-arm)/);
});
