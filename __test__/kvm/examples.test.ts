import { existsSync } from 'node:fs';
import { findFirmware } from '../../ts/cli/firmware.ts';
import { type Ended, EXTENSION, path, program } from '../helpers/child.ts';
import { exampleProgram } from '../helpers/examples.ts';
import { needs } from '../helpers/needs.ts';

const test = needs('x86_64', 'readonly-mem');

test('@example: each runs', async t => {
  using generated = exampleProgram();
  const { code, stdout, stderr } = await program(generated.file);
  t.is(code, 0, `${stdout}\n${stderr}`);
  const [, count = '0'] = /^examples run: (\d+)$/mu.exec(stdout) ?? [];
  t.true(Number(count) >= 12, stdout);
});

for (const [name, expected] of [
  ['hello', "out 0x3f8: 'H'\nout 0x3f8: 'i'\nhlt\n"],
  ['calculator', 'operand 6\noperand 7\nproduct 42\nhlt\nthe guest stored 42\n'],
  [
    'rom-to-ram',
    'a write to ROM arrives here, and changes nothing: rom\ntwo slots: 32768 bytes of ROM, 32768 bytes of RAM\n' +
      'the guest read 42\na write to RAM changes it: ram\n',
  ],
  ['shared-buffer', 'hlt\n12 * 12 = 144\n'],
  ['mmio-counter', 'set to 100\nread 100\nread 101\nread 102\nhlt\nthe guest stored 303\n'],
] as const) {
  test(`examples/${name}.ts: runs as a newcomer copies it`, async t => {
    const { code, stdout, stderr } = await example(name);
    t.deepEqual([code, stderr], [0, '']);
    t.is(stdout, expected);
  });
}

const found = findFirmware();

needs(
  'x86_64',
  'SeaBIOS',
  'readonly-mem',
)('examples/seabios.ts: makes an object of the log', async t => {
  const { code, stdout, stderr } = await example('seabios', 'file' in found ? [found.file] : []);
  t.deepEqual([code, stderr], [0, '']);
  t.regex(
    stdout,
    /^\{\n {2}version: '[\d.]+.*',\n {2}ramBytes: 16777216,\n {2}cpuMhz: (\d+|undefined),\n {2}attempts: \[\n/u,
  );
  t.regex(stdout, /\{ device: 'Hard Disk', failure: 'could not read the boot disk' \}/u);
});

test('examples/seabios.ts: without a firmware it says what is missing', async t => {
  const { code, stderr } = await example('seabios', ['/no/such/bios.bin']);
  t.is(code, 1);
  t.regex(stderr, /TypevisorError.*cannot read the firmware \/no\/such\/bios\.bin/u);
});

/** Against dist/, as for one who installed the package. */
function example(name: string, args: readonly string[] = []): Promise<Ended> {
  if (!existsSync(path('dist/index.js'))) throw new Error('dist/ is not built: run npm run build:ts, or npm test');
  return program(path(`examples/${name}${EXTENSION}`), { args });
}
