// `npm run lab` before any machine boots: arguments, help, the list.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import test from 'node:test';
import { ROOT } from '../../scripts/lib/paths.mjs';
import { MACHINES } from '../machines.mjs';

function lab(...args) {
  const env = { ...process.env, TYPEVISOR_SETUP: 'off' };
  return spawnSync(process.execPath, ['lab/main.mjs', ...args], { cwd: ROOT, env, encoding: 'utf8', timeout: 30_000 });
}

test('arguments that make no sense are refused with exit code 2', () => {
  for (const [args, message] of [
    [[], /say what to run/],
    [['--kernel', '6.1'], /say what to run/],
    [['--kernel', '4.19', '--', 'true'], /no such machine: 4\.19 \(there are: lab, /],
    [['--arch', 'mips', '--', 'true'], /no such architecture: mips/],
    [['--timeout', 'soon', '--', 'true'], /--timeout takes a whole number from 1 on, not soon/],
    [['--memory', '0', '--', 'true'], /--memory takes a whole number/],
    [['--colour', '--', 'true'], /Unknown option '--colour'/],
    [['uname', '-r'], /say what to run behind a second --/],
    [['--kernel', '6.1', 'uname', '--', 'true'], /say what to run behind a second --/],
    [['prepare', 'nowhere'], /no such machine: nowhere/],
    [['selftests', '--machine', 'nowhere'], /no such machine: nowhere/],
    [['list', '--all'], /Unknown option '--all'/],
  ]) {
    const { status, stdout, stderr } = lab(...args);
    assert.equal(status, 2, `${args.join(' ')}: ${stderr}`);
    assert.equal(stdout, '');
    assert.match(stderr, message);
    assert.doesNotMatch(stderr, /\n\s+at /, 'no stack');
  }
});

test('--help says it all; after -- it belongs to the command', () => {
  assert.match(lab('--help').stdout, /npm run lab -- list/);
  assert.doesNotMatch(lab('--kernel', 'nowhere', '--', 'node', '--help').stdout, /npm run lab/);
});

test('the list has every machine, for people and as JSON', () => {
  const text = lab('list');
  assert.equal(text.status, 0, text.stderr);
  for (const { id } of MACHINES)
    assert.match(text.stdout, new RegExp(`^[* ] ${id.replaceAll('.', '\\.')} .*ready`, 'm'));
  const { schemaVersion, machines } = JSON.parse(lab('list', '--json').stdout);
  assert.equal(schemaVersion, 1);
  assert.deepEqual(
    machines.map(({ id }) => id),
    MACHINES.map(({ id }) => id),
  );
  for (const { ready, kernel, why } of machines) assert.ok(ready ? kernel : why);
});
