// The command line of the emulator, and the script that a machine runs.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import test from 'node:test';
import { commandScript, shellWord } from '../lib/initrd.mjs';
import { qemuCommand } from '../lib/qemu.mjs';

const ports = { console: 'w/console', out: 'w/out', err: 'w/err', status: 'w/status' };
const common = { kernel: 'k', initrd: 'i', shares: [], ports, memoryMib: 2048, cpus: 2 };

test("a machine with the host's processor sees its root read-only, and dies with this process", () => {
  const { command, args } = qemuCommand({ ...common, arch: 'x86_64', root: { folder: '/' } });
  assert.equal(command, 'setpriv');
  assert.deepEqual(args.slice(0, 4), ['--pdeathsig', 'KILL', '--', 'qemu-system-x86_64']);
  const root = args[args.indexOf('-virtfs') + 1];
  assert.match(root, /^local,path=\/,mount_tag=root,.*,readonly=on$/);
  assert.ok(!args.includes('-drive'));
});

test('another processor gets an image, and shares by their modes', () => {
  const shares = [
    { path: '/src', mode: 'over' },
    { path: '/src/files,of mine', mode: 'rw' },
  ];
  const { args } = qemuCommand({ ...common, arch: 'aarch64', root: { image: 'root.ext4' }, shares });
  assert.ok(args.includes('if=none,id=root,format=raw,readonly=on,file=root.ext4'));
  const folders = args.filter((_, index) => args[index - 1] === '-virtfs');
  assert.match(folders[0], /path=\/src,mount_tag=share0,.*readonly=on$/);
  assert.match(folders[1], /path=\/src\/files,,of mine,mount_tag=share1,/, 'a comma is doubled');
  assert.doesNotMatch(folders[1], /readonly/);
});

test('words reach the command as they are, whatever is in them', () => {
  assert.equal(shellWord('plain-1.0/x'), 'plain-1.0/x');
  const nasty = [`it's`, 'a  b', '$HOME', '`x`', '', '*', 'line\nbreak', '"'];
  const script = commandScript(['printf', '%s|', ...nasty], '/', { NAME: `o'clock $x` });
  const { stdout, status } = spawnSync('sh', ['-c', script], { encoding: 'utf8' });
  assert.equal(stdout, `${nasty.join('|')}|`);
  assert.equal(status, 0);
  const shown = spawnSync('sh', ['-c', commandScript(['printenv', 'NAME'], '/', { NAME: `o'clock $x` })]);
  assert.equal(String(shown.stdout), `o'clock $x\n`);
});
