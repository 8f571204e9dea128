import { writeFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { KiB, MiB, Vm } from '../../ts/index.ts';
import { x86 as test } from '../helpers/needs.ts';
import { throwsCode, wrong } from '../helpers/throws.ts';

/** A firmware that writes its address's low byte to a port: 128 KiB of nop, then at the reset vector the code. */
function image(): Uint8Array {
  const bytes = new Uint8Array(128 * KiB).fill(0x90);
  bytes.set([0xe6, 0x80, 0xf4], bytes.length - 16); // out 0x80, al; hlt
  return bytes;
}

function withRam(): Vm {
  const vm = Vm.create();
  vm.memory.map({ gpa: 0, size: 1 * MiB });
  return vm;
}

test('vm.loadFirmware: puts it below 4 GiB, read-only, and a copy below 1 MiB', async t => {
  using vm = withRam();
  const where = vm.loadFirmware(image());
  t.deepEqual(where, { rom: { gpa: 0xfffe_0000, size: 128 * KiB }, shadow: { gpa: 0xe_0000, size: 128 * KiB } });
  t.true(vm.memory.slotAt(0xffff_ffff)?.readonly);
  t.deepEqual(vm.memory.read(0xf_fff0, 16), image().subarray(-16));
  const vcpu = vm.createVcpu();
  t.like(await vcpu.run(), { kind: 'io', direction: 'out', port: 0x80 });
  t.deepEqual(await vcpu.run(), { kind: 'hlt' });
});

test('vm.loadFirmware: takes a path and a file: URL', t => {
  const folder = mkdtempSync(join(tmpdir(), 'typevisor-test-'));
  const file = join(folder, 'bios with space.bin');
  writeFileSync(file, image());
  for (const from of [file, pathToFileURL(file)]) {
    using vm = withRam();
    t.is(vm.loadFirmware(from).rom.size, 128 * KiB);
  }
  rmSync(folder, { recursive: true });
});

test('vm.loadFirmware: a missing file is ERR_IO with its path and errno', t => {
  using vm = withRam();
  const error = throwsCode(t, 'ERR_IO', () => vm.loadFirmware('/no/such/bios.bin'));
  t.like(error, { errno: -2, errnoName: 'ENOENT', syscall: 'open' });
  t.regex(error?.message ?? '', /\/no\/such\/bios\.bin/u);
  t.is(throwsCode(t, 'ERR_IO', () => vm.loadFirmware('/'))?.errnoName, 'EISDIR');
});

test('vm.loadFirmware: what is no file or no firmware is refused, and nothing stays mapped', t => {
  using vm = withRam();
  for (const file of [undefined, null, 1, {}, 'a\0b', new URL('https://example.org/bios.bin')]) {
    throwsCode(t, 'ERR_INVALID_ARGUMENT', () => vm.loadFirmware(wrong(file)));
  }
  for (const size of [0, 100, 64 * KiB, 32 * MiB]) {
    throwsCode(t, 'ERR_GUEST_IMAGE', () => vm.loadFirmware(new Uint8Array(size)));
  }
  t.is(vm.memory.slots.length, 1);
});

test('vm.loadFirmware: without memory below 1 MiB it is ERR_MEMORY_HOLE, and nothing stays mapped', t => {
  using vm = Vm.create();
  throwsCode(t, 'ERR_MEMORY_HOLE', () => vm.loadFirmware(image()));
  t.deepEqual(vm.memory.slots, []);
});
