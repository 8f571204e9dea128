import { pathToFileURL } from 'node:url';
import test from 'ava';
import { type Backing, type MapOptions, mapRequest } from '../../ts/backing.ts';
import { KiB, MiB } from '../../ts/index.ts';
import { throwsCode, wrong } from '../helpers/throws.ts';

const PLACE: MapOptions = { gpa: 1 * MiB, size: 8 * KiB };

test('mapRequest: what is not said has its default', t => {
  t.deepEqual(mapRequest(PLACE), {
    request: {
      gpa: 1 * MiB,
      size: 8 * KiB,
      readonly: false,
      slot: null,
      addressSpace: null,
      transparentHugePages: true,
      backing: { kind: 'anonymous' },
    },
    bytes: undefined,
  });
});

test('mapRequest: what is said is passed on', t => {
  const { request } = mapRequest({
    ...PLACE,
    readonly: true,
    slot: 3,
    addressSpace: 1,
    transparentHugePages: false,
    backing: 'memfd',
  });
  t.deepEqual(request, {
    gpa: 1 * MiB,
    size: 8 * KiB,
    readonly: true,
    slot: 3,
    addressSpace: 1,
    transparentHugePages: false,
    backing: { kind: 'memfd' },
  });
});

const BACKINGS: readonly [Backing, object][] = [
  ['anonymous', { kind: 'anonymous' }],
  ['guest-memfd', { kind: 'guest-memfd' }],
  [{ hugetlb: 2 * MiB }, { kind: 'hugetlb', pageSize: 2 * MiB }],
  [{ file: 'disk.img' }, { kind: 'path', path: 'disk.img', offset: 0, shared: false }],
  [
    { file: pathToFileURL('/a b.img'), offset: 4096 },
    { kind: 'path', path: '/a b.img', offset: 4096, shared: false },
  ],
  [
    { file: 0, mode: 'shared' },
    { kind: 'fd', fd: 0, offset: 0, shared: true },
  ],
  [
    { file: 7, mode: 'private', offset: undefined },
    { kind: 'fd', fd: 7, offset: 0, shared: false },
  ],
];

for (const [backing, expected] of BACKINGS) {
  test(`mapRequest: ${JSON.stringify(backing)} as the addon takes it`, t => {
    const request: object = mapRequest({ ...PLACE, backing }).request.backing;
    t.deepEqual(request, expected);
  });
}

test('mapRequest: a message says what was expected and what came', t => {
  const message = (backing: unknown): string | undefined =>
    throwsCode(t, 'ERR_INVALID_ARGUMENT', () => mapRequest({ ...PLACE, backing: wrong(backing) }))?.message;
  const expected =
    "backing must be 'anonymous', 'memfd', 'guest-memfd' or an object with hugetlb, file, buffer or share; got";
  t.is(message('disk'), `${expected} the string "disk"`);
  t.is(message('hugetlb'), `${expected} the string "hugetlb"`);
  t.is(message(5), `${expected} the number 5`);
  t.is(message({ buffer: new ArrayBuffer(8) }), 'buffer must be a SharedArrayBuffer; got an object (ArrayBuffer)');
  const buffer = new SharedArrayBuffer(8, { maxByteLength: 8192 });
  t.is(message({ buffer }), 'buffer has 8 bytes; the slot wants 8192: grow it first');
  t.is(message({ file: true }), 'file must be a path, a file: URL or a file descriptor; got the boolean true');
  t.regex(message({ file: new URL('https://example.org/') }) ?? '', /^file must be a file: URL: /u);
  t.is(message({ file: 'x', size: 5 }), "a file backing has no 'size'; it has file, offset, mode");
  t.is(message({ share: {} }), 'share must be a MemorySlot; got an object (Object)');
});
