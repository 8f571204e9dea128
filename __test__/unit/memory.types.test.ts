import test from 'ava';
import type { Backing, MakeChanges, MapOptions, MemorySlot } from '../../ts/index.ts';

// What stands here is held by the type check (`npm run check -- lint types`): each line below an expectation has to be
// refused, and everything else accepted.

declare const slot: MemorySlot;
const buffer = new SharedArrayBuffer(4096, { maxByteLength: 4096 });
const backings = (): readonly (Backing | undefined)[] => [
  undefined,
  'anonymous',
  'memfd',
  'guest-memfd',
  { hugetlb: 2 ** 21 },
  { file: 'disk.img' },
  { file: new URL('file:///disk.img'), mode: 'shared' },
  { file: 3, offset: 4096, mode: 'private' },
  { buffer },
  { share: slot },
  { share: slot, offset: 4096 },
];

const refused = (): readonly Backing[] => [
  // @ts-expect-error -- no such word
  'disk',
  // @ts-expect-error -- the size of a page, and no word
  { hugetlb: '2M' },
  // @ts-expect-error -- a file by its name
  { path: 'disk.img' },
  // @ts-expect-error -- no such mode
  { file: 'disk.img', mode: 'rw' },
  // @ts-expect-error -- bytes that JavaScript can move
  { buffer: new ArrayBuffer(4096) },
  // @ts-expect-error -- a view is no buffer
  { buffer: new Uint8Array(buffer) },
  // @ts-expect-error -- a number is no slot
  { share: 0 },
];

const changes = (): readonly MakeChanges[] => [
  () => undefined,
  tx => tx.unmap(slot),
  tx => {
    tx.map({ gpa: 0, size: 4096, backing: 'memfd' });
    tx.move(slot, 4096);
    tx.setReadonly(slot, true);
  },
  // @ts-expect-error -- the number of a slot is no slot
  tx => tx.unmap(0),
  // @ts-expect-error -- there is no such change
  tx => tx.setDirtyLog(slot, true),
];

const waiting = (): readonly MakeChanges[] => [
  // @ts-expect-error -- a change does not wait
  async tx => tx.unmap(slot),
  // @ts-expect-error -- nor by another's promise
  tx => Promise.resolve(tx),
];

const options: readonly MapOptions[] = [
  { gpa: 0, size: 4096, addressSpace: 1, transparentHugePages: false, slot: undefined },
  // @ts-expect-error -- no size
  { gpa: 0 },
  // @ts-expect-error -- addresses are numbers
  { gpa: 0n, size: 4096 },
];

test('Backing, MapOptions, MakeChanges: their types take what the addon takes', t => {
  t.deepEqual(
    [backings, refused, changes, waiting].map(list => typeof list),
    ['function', 'function', 'function', 'function'],
  );
  t.is(options.length, 3);
});
