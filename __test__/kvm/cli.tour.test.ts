import { typevisor } from '../helpers/cli.ts';
import { needs, x86 } from '../helpers/needs.ts';

const bios = needs('x86_64', 'SeaBIOS');

const noFirmware = { env: { TYPEVISOR_FIRMWARE: '/no/such/bios.bin' } };

x86('typevisor tour: shows the report and the exits of two guests; without a firmware it says so, and 0', async t => {
  const { code, stdout, stderr } = await typevisor(['tour'], noFirmware);
  t.deepEqual([code, stderr], [0, '']);
  t.regex(stdout, /1\. This machine\n[^]*Guests can run here\./u);
  t.regex(stdout, / 5 {2}io {4}out {3}port 0x3f8 {2}6f {2}'o'\n {6}6 {2}io {4}in {4}port 0x60/u);
  t.regex(stdout, / 8 {2}hlt\n/u);
  t.regex(stdout, /rax = 2432902008176640000, in ring 3\n/u);
  t.regex(stdout, /Left out: TYPEVISOR_FIRMWARE is \/no\/such\/bios\.bin, which is not there\.\n$/u);
});

x86('typevisor tour --json: is one object with every exit', async t => {
  const { code, stdout, stderr } = await typevisor(['tour', '--json'], noFirmware);
  t.deepEqual([code, stderr], [0, '']);
  const { guests, ...rest } = JSON.parse(stdout);
  const skipped = 'TYPEVISOR_FIRMWARE is /no/such/bios.bin, which is not there';
  t.like(rest, { schemaVersion: 1, doctor: { usable: true }, firmware: { skipped } });
  t.like(guests, [
    { name: 'real-mode', outcome: 'as-expected' },
    { name: 'long-mode', outcome: 'as-expected', result: '0x21c3677c82b40000' },
  ]);
  t.is(guests[0].exits.length, 8);
  t.deepEqual(guests[0].exits[0], { kind: 'io', direction: 'out', port: 0x3f8, size: 1, count: 1, data: [0x48] });
});

bios('typevisor tour: SeaBIOS streams its log until it looked for a boot device', async t => {
  const { code, stdout, stderr } = await typevisor(['tour']);
  t.deepEqual([code, stderr], [0, '']);
  t.regex(stdout, /\nSeaBIOS \(version .*\n[^]*\nPress ESC for boot menu\.\n[^]*\nNo bootable device\..*\n/u);
  t.regex(stdout, /SeaBIOS came to its search for a boot device: \d+ lines of log in [\d.]+ s\.\n$/u);
});

bios('typevisor tour --json: the log is in the object, and on stderr as it comes', async t => {
  const { code, stdout, stderr } = await typevisor(['tour', '--json']);
  t.is(code, 0);
  const { firmware } = JSON.parse(stdout);
  t.is(firmware.outcome, 'reached');
  t.true(firmware.seconds > 0);
  t.is(firmware.log, stderr);
  t.regex(stderr, /^SeaBIOS \(version /u);
});

bios('typevisor tour --timeout: time that is up before the boot device search is 124', async t => {
  const { code, stdout } = await typevisor(['tour', '--timeout', '0.05']);
  t.is(code, 124);
  t.regex(stdout, /Time is up before SeaBIOS looked for a boot device/u);
});

for (const [signal, expected] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
] as const) {
  bios(`typevisor tour: ${signal} while SeaBIOS runs closes the VM and is ${expected}`, async t => {
    let sent = false; // a second one would end the process at once
    const ended = await typevisor(['tour'], {
      onStdout: (soFar, kill) => {
        if (sent || !/\nSeaBIOS \(version/u.test(soFar)) return;
        sent = true;
        kill(signal);
      },
    });
    t.deepEqual([ended.code, ended.signal, ended.stderr], [expected, null, `\ntypevisor: interrupted by ${signal}\n`]);
  });
}
