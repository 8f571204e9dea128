import { KiB } from '../../ts/index.ts';
import { typevisor } from '../helpers/cli.ts';
import { guestFiles } from '../helpers/guest-file.ts';
import { needs, x86 } from '../helpers/needs.ts';

const file = guestFiles();

const bios = needs('x86_64', 'SeaBIOS');

/** A firmware of 64 KiB whose code is at the reset vector, 16 bytes below its end. */
function firmware(...code: readonly number[]): string {
  const image = new Uint8Array(64 * KiB).fill(0xf4);
  image.set(code, image.length - 16);
  return file(...image);
}

/** `mov dx, 0x402; mov al, '!'; out dx, al; mov al, 7; out 0xf4, al` */
const BYE = [0xba, 0x02, 0x04, 0xb0, 0x21, 0xee, 0xb0, 0x07, 0xe6, 0xf4];

x86('typevisor run --bios FILE: starts at the reset vector; debug console and exit port work', async t => {
  const { code, stdout, stderr } = await typevisor(['run', '--bios', firmware(...BYE)]);
  t.deepEqual([code, stdout, stderr], [7, '!', '']);
});

x86('typevisor run --bios: hlt waits for an interrupt, and is no end', async t => {
  const { code } = await typevisor(['run', '--bios', '--timeout', '0.3', firmware(0xf4)]);
  t.is(code, 124);
});

x86('typevisor run --bios: a file that is no firmware is 126', async t => {
  const { code, stdout, stderr } = await typevisor(['run', '--bios', file(0xf4)]);
  t.deepEqual([code, stdout], [126, '']);
  t.regex(stderr, /^typevisor: .*firmware/u);
});

bios('typevisor run --bios --json --stats: SeaBIOS, until the time is up', async t => {
  const { code, stdout, stderr } = await typevisor(['run', '--bios', '--json', '--stats', '--timeout', '1.5']);
  t.is(code, 124);
  t.regex(stderr, /^SeaBIOS \(version /u);
  const report = JSON.parse(stdout);
  t.like(report, { kind: 'bios', outcome: 'timeout', guestExitCode: null });
  t.true(report.exits.io.count > 10);
});
