// The parts of the set-up that decide something: versions, staleness, the firmware's place, the lock, child processes.
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import test from 'node:test';
import { findFirmware } from '../lib/firmware.mjs';
import { kvmProblem } from '../lib/kvm.mjs';
import { withLock } from '../lib/lock.mjs';
import { cacheDir } from '../lib/paths.mjs';
import { run } from '../lib/run.mjs';
import { Stamp, fingerprint } from '../lib/stale.mjs';
import { atLeast, versionIn } from '../lib/versions.mjs';

/** A folder with `files` (path to content), gone when the test ends. */
function folder(t, files = {}) {
  const root = mkdtempSync(join(tmpdir(), 'typevisor-test-'));
  t.after(() => rmSync(root, { recursive: true }));
  for (const [path, content] of Object.entries(files)) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), content);
  }
  return root;
}

/** A promise and what fulfils it. */
function gate() {
  const made = {};
  made.opened = new Promise(resolve => (made.open = resolve));
  return made;
}

test('versions are compared by number', () => {
  assert.deepEqual(versionIn('rustc 1.88.0 (6b00bc388 2025-06-23)'), [1, 88, 0]);
  assert.deepEqual(versionIn('1.96.0+dfsg1-1~deb12u2'), [1, 96, 0]);
  assert.equal(versionIn('(none)'), undefined);
  assert.equal(atLeast([1, 100, 0], [1, 88]), true);
  assert.equal(atLeast([20, 18, 3], [20, 19]), false);
});

test('a fingerprint follows names and contents, not times', t => {
  const root = folder(t, { 'src/a.rs': 'a', 'src/b/c.rs': 'c', 'x.toml': 'x' });
  const of = () => fingerprint(['src', 'x.toml', 'absent'], '', root);
  const first = of();
  utimesSync(join(root, 'src/a.rs'), 1, 1);
  assert.equal(of(), first);
  writeFileSync(join(root, 'src/a.rs'), 'b');
  assert.notEqual(of(), first);
});

test('a stamp is fresh for its inputs and until the output is made anew by hand', t => {
  const root = folder(t, { 'dist/index.js': 'x' });
  const stamp = new Stamp('ts', 'dist/index.js', root);
  assert.equal(stamp.isFresh('1'), false);
  stamp.write('1');
  assert.equal(stamp.isFresh('1'), true);
  assert.equal(stamp.isFresh('2'), false);
  utimesSync(join(root, 'dist/index.js'), 1, 1);
  assert.equal(stamp.isFresh('1'), false);
});

test('firmware: the variable, then the system, then the newest in the cache', t => {
  const image = Buffer.alloc(128 * 1024);
  const root = folder(t, {
    'named.bin': 'any size',
    'installed.bin': image,
    'typevisor/firmware/seabios-1.9.0-1/bios.bin': image,
    'typevisor/firmware/seabios-1.16.2-1/bios.bin': image,
    'typevisor/firmware/seabios-1.17.0-1/bios.bin': 'a torn download',
  });
  const env = { XDG_CACHE_HOME: root };
  assert.equal(cacheDir(env), join(root, 'typevisor'));
  assert.equal(findFirmware({ ...env, TYPEVISOR_FIRMWARE: join(root, 'named.bin') }), join(root, 'named.bin'));
  assert.equal(findFirmware({ ...env, TYPEVISOR_FIRMWARE: join(root, 'absent.bin') }), undefined);
  assert.equal(findFirmware(env, join(root, 'installed.bin')), join(root, 'installed.bin'));
  const newest = join(root, 'typevisor/firmware/seabios-1.16.2-1/bios.bin');
  assert.equal(findFirmware(env, join(root, 'absent.bin')), newest);
  assert.equal(findFirmware({ XDG_CACHE_HOME: join(root, 'absent') }, join(root, 'absent.bin')), undefined);
});

test('one at a time: the second waits until the first has done', async t => {
  const name = folder(t);
  const order = [];
  const [started, release] = [gate(), gate()];
  const first = withLock(
    name,
    () => order.push('first waits'),
    async () => {
      order.push('first');
      started.open();
      await release.opened;
      order.push('first done');
    },
  );
  await started.opened;
  const told = () => {
    order.push('second waits');
    release.open();
  };
  await withLock(name, told, () => order.push('second'));
  await first;
  assert.deepEqual(order, ['first', 'second waits', 'first done', 'second']);
});

/** Whether a process runs: it is there, and no zombie that waits to be collected. */
function isRunning(pid) {
  return existsSync(`/proc/${pid}/stat`) && !readFileSync(`/proc/${pid}/stat`, 'utf8').includes(') Z ');
}

test('a child past its time is ended with all it started', async () => {
  const lines = [];
  const end = await run('sh', ['-c', 'sleep 600 & echo $!; wait'], {
    onLine: line => lines.push(line),
    timeoutMs: 300,
  });
  assert.equal(end.timedOut, true);
  assert.equal(isRunning(lines[0]), false);
});

test('a child that cannot be started is an end without a status', async () => {
  const { status, tail } = await run('no-such-command', []);
  assert.equal(status, null);
  assert.deepEqual(tail, ['no-such-command: command not found']);
});

test('a /dev/kvm that cannot be opened is a reason in words', t => {
  const root = folder(t);
  assert.equal(kvmProblem(join(root, 'kvm')), `${join(root, 'kvm')} does not exist`);
});
