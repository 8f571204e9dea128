import test from 'ava';
import { typevisor } from '../helpers/cli.ts';

/** An addon that cannot be loaded: commands that need one show what they do then. */
const env = { TYPEVISOR_NATIVE_PATH: '/no/such/addon.node' };

test('typevisor --help: is on stdout, of the program and of each command', async t => {
  for (const args of [['--help'], ['doctor', '--help'], ['tour', '-h']]) {
    const { code, stdout, stderr } = await typevisor(args, { env });
    t.deepEqual([code, stderr], [0, '']);
    t.regex(stdout, /^usage: typevisor /u);
  }
});

test('typevisor: without a command it is the help, on stderr, and 125', async t => {
  const { code, stdout, stderr } = await typevisor([], { env });
  t.deepEqual([code, stdout], [125, '']);
  t.regex(stderr, /^usage: typevisor /u);
});

test('typevisor --version: is that of the package', async t => {
  const { code, stdout } = await typevisor(['--version'], { env });
  t.is(code, 0);
  t.regex(stdout, /^\d+\.\d+\.\d+\n$/u);
});

for (const args of [
  ['turn'],
  ['tour', 'doctor'],
  ['doctor', '--timeout', '1'],
  ['tour', '--timeout', '0'],
  ['tour', '--timeout', 'soon'],
  ['tour', '--timeout', ''],
  ['tour', '--timeout=1e9'],
  ['tour', '--jason'],
]) {
  test(`typevisor ${args.join(' ')}: makes no sense, says why, and is 125`, async t => {
    const { code, stdout, stderr } = await typevisor(args, { env });
    t.deepEqual([code, stdout], [125, '']);
    t.regex(stderr, /^typevisor: .+\nTry 'typevisor --help'\.\n$/u);
  });
}

test('typevisor doctor: what is wrong is in the report, and 69', async t => {
  const { code, stdout, stderr } = await typevisor(['doctor'], { env });
  t.deepEqual([code, stderr], [69, '']);
  t.regex(stdout, /✗ native addon +\/no\/such\/addon\.node .*cannot be loaded/u);
  t.false(stdout.includes('\u001b'), 'no colour without a terminal');
});

test('typevisor doctor --json: is one object', async t => {
  const { code, stdout } = await typevisor(['doctor', '--json'], { env });
  t.is(code, 69);
  t.like(JSON.parse(stdout), {
    schemaVersion: 1,
    usable: false,
    facts: [],
    checks: [{ id: 'addon', status: 'failed' }],
  });
});

test('typevisor tour: without KVM it ends after the report, with 69', async t => {
  const { code, stdout } = await typevisor(['tour'], { env });
  t.is(code, 69);
  t.regex(stdout, /^1\. This machine\n/u);
  t.notRegex(stdout, /\n2\. /u);
});

test('typevisor tour --json: without KVM guests and firmware are null', async t => {
  const { code, stdout } = await typevisor(['tour', '--json'], { env });
  t.is(code, 69);
  t.like(JSON.parse(stdout), { schemaVersion: 1, doctor: { usable: false }, guests: null, firmware: null });
});

test('typevisor: FORCE_COLOR colours a pipe, NO_COLOR does not', async t => {
  const forced = await typevisor(['doctor'], { env: { ...env, FORCE_COLOR: '1' } });
  t.true(forced.stdout.includes('\u001b[31m✗\u001b[39m'));
  const plain = await typevisor(['doctor'], { env: { ...env, NO_COLOR: '1' } });
  t.false(plain.stdout.includes('\u001b'));
});
