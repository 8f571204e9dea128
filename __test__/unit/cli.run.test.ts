import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { check, Misuse, parse } from '../../ts/cli/command.ts';
import { COMMANDS } from '../../ts/cli/commands.ts';
import { planOf } from '../../ts/cli/plan.ts';
import { registerLines } from '../../ts/cli/registers.ts';
import { RUN } from '../../ts/cli/run.ts';
import { Statistics } from '../../ts/cli/statistics.ts';
import { path } from '../helpers/child.ts';
import { typevisor } from '../helpers/cli.ts';
import { wrong } from '../helpers/throws.ts';

/** Before any VM is made: none of these needs KVM, or even an addon. */
const env = { TYPEVISOR_NATIVE_PATH: '/no/such/addon.node' };

const folder = mkdtempSync(join(tmpdir(), 'typevisor-run-'));
const guest = join(folder, 'guest.bin');
const empty = join(folder, 'empty.bin');
writeFileSync(guest, Uint8Array.of(0xf4));
writeFileSync(empty, '');
test.after.always(() => rmSync(folder, { recursive: true }));

for (const args of [
  [],
  ['--flat'],
  ['--flat', '--bios', guest],
  ['--load', '4K', guest],
  ['--bios', '--memory', '32M', guest],
  ['--flat', '--mode', 'unreal', guest],
  ['--flat', '--user', guest],
  ['--flat', '--memory', '0', guest],
  ['--flat', '--memory', '5000', guest],
  ['--flat', '--memory', '4G', guest],
  ['--flat', '--memory', '1T', guest],
  ['--flat', '--load', '-1', guest],
  ['--flat', '--load=-1', guest],
  ['--flat', '--entry', '0x', guest],
  ['--flat', '--console', '65536', guest],
  ['--flat', '--console', '0xf0', guest],
  ['--flat', '--exit-port', '1.5', guest],
  ['--flat', '--exit-port', '0x3fb', guest],
  ['--flat', '--timeout', 'soon', guest],
  ['--flat', guest, guest],
]) {
  const title = args.map(word => (word === guest ? 'FILE' : word)).join(' ');
  test(`typevisor run ${title}: makes no sense, and says why`, t => {
    const error = t.throws(() => {
      const parsed = parse(['run', ...args], COMMANDS.values(), {});
      check('run', RUN, parsed);
      planOf(parsed.values, parsed.positionals[1]);
    });
    t.true(error instanceof Misuse, error.message);
    t.regex(error.message, /\S/u);
  });
}

for (const [what, args, expected, message] of [
  ['a guest of an unknown kind', [guest], 126, /ELF guests cannot be run yet; .*--flat .*--bios /u],
  ['an empty file', ['--flat', empty], 126, /is empty/u],
  ['a folder', ['--flat', folder], 126, /cannot be read/u],
  ['a guest beyond its memory', ['--flat', '--memory', '4K', guest], 126, /give more with --memory/u],
  ['a file that is not there', ['--flat', join(folder, 'none')], 127, /none: no such file/u],
  ['a file below a file', [join(guest, 'none')], 127, /none: no such file/u],
  ['no firmware', ['--bios'], 127, /TYPEVISOR_FIRMWARE is .*which is not there/u],
] as const) {
  test(`typevisor run: ${what} is ${expected}`, async t => {
    const firmware = { ...env, TYPEVISOR_FIRMWARE: join(folder, 'none') };
    const [text, json] = await Promise.all([
      typevisor(['run', ...args], { env: firmware }),
      typevisor(['run', '--json', ...args], { env: firmware }),
    ]);
    t.deepEqual([text.code, text.stdout, json.code], [expected, '', expected]);
    t.regex(text.stderr, message);
    t.is(json.stderr, text.stderr);
    t.deepEqual(JSON.parse(json.stdout), {
      schemaVersion: 1,
      outcome: 'failed',
      guestExitCode: null,
      exitCode: expected,
      error: { code: null, message: text.stderr.slice('typevisor: '.length, -1) },
    });
  });
}

for (const args of [['run', '--flat', guest], ['caps']]) {
  test(`typevisor ${args[0]}: without KVM it is 69, with the remedy, and no guest has run`, async t => {
    const without = { TYPEVISOR_NATIVE_PATH: path('__test__/fixtures/no-kvm.cjs') };
    const [text, json] = await Promise.all([
      typevisor(args, { env: without }),
      typevisor([...args, '--json'], { env: without }),
    ]);
    t.deepEqual([text.code, text.stdout, json.code], [69, '', 69]);
    t.is(text.stderr, 'typevisor: /dev/kvm is not there; do this about it\n');
    const report = JSON.parse(json.stdout);
    t.like(report, { schemaVersion: 1, exitCode: 69, error: { code: 'ERR_KVM_UNAVAILABLE' } });
    if (args[0] === 'run') t.is(report.guestExitCode, null);
  });
}

test('Statistics: sums by kind, the most frequent first, and a total', t => {
  const statistics = new Statistics();
  statistics.add('hlt', 1, 0.5);
  statistics.add('io', 2, 0.25);
  statistics.add('io', 3.0004, 0.25);
  t.deepEqual(Object.entries(statistics.byKind()), [
    ['io', { count: 2, guestMs: 5, handlerMs: 0.5 }],
    ['hlt', { count: 1, guestMs: 1, handlerMs: 0.5 }],
  ]);
  t.deepEqual(statistics.lines(), [
    'exit     count        in guest      in handler',
    'io           2        5.000 ms        0.500 ms',
    'hlt          1        1.000 ms        0.500 ms',
    'all          3        6.000 ms        1.000 ms',
  ]);
});

test('registerLines: of either architecture, in 80 columns', t => {
  const lines = registerLines(wrong({ arch: 'aarch64', pending: false, x0: 0x2an, pc: 2n ** 64n - 1n, pstate: 5n }));
  t.deepEqual(lines, ['      x0 000000000000002a       pc ffffffffffffffff   pstate 0000000000000005']);
});
