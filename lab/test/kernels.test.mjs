// Debian's kernels: which image is chosen, in what order modules load, and the kernel inside a bzImage.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { output } from '../../scripts/lib/run.mjs';
import { chooseImages, loadOrder } from '../lib/kernels.mjs';
import { newcArchive } from '../lib/newc.mjs';
import { isArm64Image, kernelInside, moduleBytes } from '../lib/unpack.mjs';
import { compareVersions } from '../lib/versions.mjs';

const image = (name, version, depends = 'kmod, linux-base (>= 4.3~)', arch = 'amd64') => ({
  Package: `linux-image-${name}-${arch}`,
  Version: version,
  Architecture: arch,
  Depends: depends,
});
const SPLIT =
  'linux-binary-7.3.4+deb13-amd64 (= 7.3.4-1~bpo13+1), linux-modules-7.3.4+deb13-amd64 (= 7.3.4-1~bpo13+1), linux-base (>= 4.12)';
const LISTED = [
  image('6.1.0-9', '6.1.27-1'),
  image('6.1.0-56', '6.1.192-2'),
  image('6.1.0-0.deb11.60', '6.1.190-1~deb11u1'),
  image('6.1.0-57-cloud', '6.1.193-1'),
  image('6.1.0-57-rt', '6.1.193-1'),
  image('6.1.0-57', '6.1.193-1', '', 'arm64'),
  image('6.12.117+deb13', '6.12.117-1'),
  image('7.3.4+deb13', '7.3.4-1~bpo13+1', SPLIT),
  { ...image('6.1', '6.1.193-1'), Package: 'linux-image-6.1-amd64' },
  { ...image('x', '7.9-1'), Package: 'linux-image-amd64' },
  { ...image('6.1.0-58', '6.1.194-1'), Package: 'linux-image-6.1.0-58-amd64-unsigned' },
];

test('the images of a series come newest first, by version and not by name', () => {
  assert.deepEqual(chooseImages(LISTED, 'amd64', '6.1'), [
    ['linux-image-6.1.0-56-amd64:amd64=6.1.192-2'],
    ['linux-image-6.1.0-0.deb11.60-amd64:amd64=6.1.190-1~deb11u1'],
    ['linux-image-6.1.0-9-amd64:amd64=6.1.27-1'],
  ]);
  assert.deepEqual(chooseImages(LISTED, 'arm64', '6.1'), [['linux-image-6.1.0-57-arm64:arm64=6.1.193-1']]);
  assert.deepEqual(chooseImages(LISTED, 'amd64', '5.10'), []);
});

test('the newest is that of all series, and a split image brings its pieces', () => {
  assert.deepEqual(chooseImages(LISTED, 'amd64', 'newest')[0], [
    'linux-image-7.3.4+deb13-amd64:amd64=7.3.4-1~bpo13+1',
    'linux-binary-7.3.4+deb13-amd64:amd64=7.3.4-1~bpo13+1',
    'linux-modules-7.3.4+deb13-amd64:amd64=7.3.4-1~bpo13+1',
  ]);
});

const ASCENDING = [
  '1.0~rc1',
  '1.0',
  '1.0-1~bpo13+1',
  '1.0-1',
  '1.0-1+b1',
  '1.0a',
  '1.2',
  '1.10',
  '6.1.27-1',
  '6.1.190-1~deb11u1',
  '6.1.192-2',
  '1:0.5',
];

test("versions are in Debian's order", () => {
  for (const [i, a] of ASCENDING.entries())
    for (const [j, b] of ASCENDING.entries())
      assert.equal(Math.sign(compareVersions(a, b)), Math.sign(i - j), `${a} ${b}`);
});

test("versions are in dpkg's order", { skip: output('dpkg', ['--version']) === undefined && 'no dpkg here' }, () => {
  for (let i = 1; i < ASCENDING.length; i += 1)
    assert.equal(
      spawnSync('dpkg', ['--compare-versions', ASCENDING[i - 1], 'lt', ASCENDING[i]]).status,
      0,
      ASCENDING[i],
    );
});

test('modules load once each, before what needs them', () => {
  const lines = [
    'insmod /m/a.ko.xz ',
    'insmod /m/b.ko.xz x=1',
    'builtin overlay',
    'insmod /m/a.ko.xz ',
    'insmod /m/c.ko ',
  ];
  assert.deepEqual(loadOrder(lines), ['/m/a.ko.xz', '/m/b.ko.xz', '/m/c.ko']);
});

const ELF = Buffer.concat([Buffer.from('\x7fELF', 'latin1'), Buffer.alloc(5000, 'kernel')]);

/** A bzImage with two setup sectors and this payload 16 bytes into its protected-mode part. */
function bzImage(payload) {
  const bytes = Buffer.alloc(3 * 512 + 16 + payload.length + 32);
  bytes[0x1f1] = 2;
  bytes.write('HdrS', 0x202, 'latin1');
  bytes.writeUInt32LE(16, 0x248);
  bytes.writeUInt32LE(payload.length, 0x24c);
  payload.copy(bytes, 3 * 512 + 16);
  return bytes;
}

/** As Linux's build does it: all formats but gzip are followed by the unpacked size. */
function withSize(packed, size = ELF.length) {
  const end = Buffer.alloc(4);
  end.writeUInt32LE(size);
  return Buffer.concat([packed, end]);
}

/** @type {Record<string, [string, string[]]>} */
const PACKERS = {
  xz: ['xz', ['--check=crc32', '-c']],
  zstd: ['zstd', ['-qc']],
  lzma: ['xz', ['--format=lzma', '-c']],
};

for (const [name, [command, args]] of Object.entries(PACKERS))
  test(
    `the kernel in a bzImage packed with ${name} is found`,
    { skip: output(command, ['--version']) === undefined && `no ${command} here` },
    () => {
      const { stdout } = spawnSync(command, args, { input: ELF });
      assert.deepEqual(kernelInside(bzImage(withSize(stdout))), ELF);
      assert.throws(() => kernelInside(bzImage(withSize(stdout, 7))), /unpacks to 5004 bytes, not 7/);
      assert.throws(
        () => kernelInside(bzImage(withSize(stdout.subarray(0, stdout.length >> 1)))),
        /could not unpack|unpacks to/,
      );
    },
  );

test('the kernel in a bzImage packed with gzip is found', () => {
  assert.deepEqual(kernelInside(bzImage(gzipSync(ELF))), ELF);
});

test('what is no kernel is refused in words', () => {
  assert.throws(() => kernelInside(Buffer.alloc(4096)), /no bzImage/);
  assert.throws(() => kernelInside(bzImage(gzipSync(ELF)).subarray(0, 1600)), /truncated/);
  assert.throws(() => kernelInside(bzImage(Buffer.from('BZh91AY&SYabcdefgh'))), /unknown way \(425a68393141\)/);
  assert.throws(() => kernelInside(bzImage(gzipSync(Buffer.alloc(64)))), /something else than ELF/);
  assert.equal(isArm64Image(ELF), false);
  const arm = Buffer.alloc(128);
  arm.write('ARM\x64', 0x38, 'latin1');
  assert.equal(isArm64Image(arm), true);
});

test('a module is unpacked, or taken as it is', () => {
  assert.deepEqual(moduleBytes(ELF), ELF);
  assert.deepEqual(moduleBytes(gzipSync(ELF)), ELF);
  assert.throws(() => moduleBytes(Buffer.from('nothing of the kind')), /a module is packed in an unknown way/);
});

/** The records of an archive: name, mode and data, as the format says (initramfs buffer format). */
function records(archive) {
  const found = [];
  for (let at = 0; ;) {
    const header = archive.toString('latin1', at, at + 110);
    assert.match(header, /^070701[0-9a-f]{104}$/);
    const field = index => Number.parseInt(header.slice(6 + 8 * index, 14 + 8 * index), 16);
    const nameEnd = at + 110 + field(11);
    const name = archive.toString('latin1', at + 110, nameEnd - 1);
    const data = (nameEnd + 3) & ~3;
    if (name === 'TRAILER!!!') return found;
    found.push({ name, mode: field(1).toString(8), data: archive.toString('latin1', data, data + field(6)) });
    at = (data + field(6) + 3) & ~3;
  }
}

test('an archive has its folders before what is in them, and programs can be run', () => {
  const archive = newcArchive({ init: '#!', 'm/101-virtio.ko': Buffer.from('abc'), 'a/b/empty': '' }, ['init']);
  assert.deepEqual(records(archive), [
    { name: 'm', mode: '40755', data: '' },
    { name: 'a', mode: '40755', data: '' },
    { name: 'a/b', mode: '40755', data: '' },
    { name: 'init', mode: '100755', data: '#!' },
    { name: 'm/101-virtio.ko', mode: '100644', data: 'abc' },
    { name: 'a/b/empty', mode: '100644', data: '' },
  ]);
});
