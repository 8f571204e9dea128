import test from 'ava';
import { COMMANDS } from '../../ts/cli/commands.ts';
import { COMMON } from '../../ts/cli/command.ts';
import { typevisor } from '../helpers/cli.ts';

/** An addon that cannot be loaded: commands that need one show what they do then. */
const env = { TYPEVISOR_NATIVE_PATH: '/no/such/addon.node' };

test('typevisor --help: names every command and the options without one', async t => {
  for (const flag of ['--help', '-h']) {
    const { code, stdout, stderr } = await typevisor([flag], { env });
    t.deepEqual([code, stderr], [0, '']);
    t.regex(stdout, /^usage: typevisor COMMAND /u);
    for (const name of [...COMMANDS.keys(), '--help', '--version']) t.true(stdout.includes(name), name);
  }
});

for (const [name, { options, argument }] of COMMANDS) {
  test(`typevisor ${name} --help: has every option and the exit codes, in 80 columns`, async t => {
    const { code, stdout, stderr } = await typevisor([name, '--help'], { env });
    t.deepEqual([code, stderr], [0, '']);
    const usage = `usage: typevisor ${name} [OPTION…]${argument === undefined ? '' : ` ${argument}`}\n`;
    t.is(stdout.slice(0, usage.length), usage);
    for (const [option, { value }] of Object.entries({ ...COMMON, ...options })) {
      t.regex(stdout, new RegExp(`^(-\\w, )?--${option}${value === undefined ? '' : ` ${value}`}  +\\S`, 'mu'), option);
    }
    t.regex(stdout, /^Exit code: /mu);
    t.deepEqual(
      stdout.split('\n').filter(line => line.length > 80),
      [],
    );
  });
}

test('typevisor: options of one name are alike in all commands, as they may stand before the command', t => {
  const takesValue = new Map<string, boolean>();
  for (const { options } of COMMANDS.values()) {
    for (const [name, { value }] of Object.entries(options)) {
      t.is(takesValue.get(name) ?? value !== undefined, value !== undefined, name);
      takesValue.set(name, value !== undefined);
    }
  }
  t.true(Object.keys(COMMON).every(name => !takesValue.has(name)));
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

for (const args of [['turn'], ['--jason'], ['tour', '--jason'], ['run', '--mode']]) {
  test(`typevisor ${args.join(' ')}: makes no sense, says why, and is 125`, async t => {
    const { code, stdout, stderr } = await typevisor(args, { env });
    t.deepEqual([code, stdout], [125, '']);
    t.regex(stderr, /^typevisor: .+\nTry 'typevisor --help'\.\n$/u);
  });
}

for (const args of [
  ['tour', 'doctor'],
  ['doctor', '--timeout', '1'],
  ['tour', '--timeout', '0'],
  ['tour', '--timeout', 'soon'],
  ['tour', '--timeout', ''],
  ['tour', '--timeout=1e9'],
  ['caps', '--flat'],
  ['run', '--all'],
  ['run', '--flat'],
  ['run', '--flat', '--memory', '5', 'FILE'],
]) {
  test(`typevisor ${args.join(' ')}: is no use of that command, says why, and is 125`, async t => {
    const { code, stdout, stderr } = await typevisor(args, { env });
    t.deepEqual([code, stdout], [125, '']);
    t.regex(stderr, /^typevisor: .+\n/u);
    t.true(stderr.endsWith(`\nTry 'typevisor ${args[0]} --help'.\n`));
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

test('typevisor caps --json: a failure is one object, with the message on stderr too', async t => {
  const { code, stdout, stderr } = await typevisor(['caps', '--json'], { env });
  t.is(code, 125);
  const failure = JSON.parse(stdout);
  t.like(failure, { schemaVersion: 1, exitCode: 125, error: { code: 'ERR_LOAD' } });
  t.is(stderr, `typevisor: ${failure.error.message}\n`);
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
