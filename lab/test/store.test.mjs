// The lab's cache: a part is whole, missing or damaged, and what is damaged is named with what mends it.
import assert from 'node:assert/strict';
import {
  appendFileSync,
  mkdtempSync,
  mkdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { Stop } from '../../scripts/lib/say.mjs';
import { finishPart, isUntouched, readPart, sha256Of, storeDir, verifyPart } from '../lib/store.mjs';

const NAME = 'kernels/x86_64-6.1';
const ABOUT = { version: '6.1.0-9', packages: ['linux-image_6.1'] };

/** A store with one part of two files. */
async function storeWith(t, contents = { kernel: 'kernel bytes', 'sub/config': 'CONFIG_KVM=m\n' }) {
  const store = mkdtempSync(join(tmpdir(), 'typevisor-store-'));
  t.after(() => rmSync(store, { recursive: true, force: true }));
  await finishPart(scratchWith(store, contents), NAME, ABOUT, store);
  return store;
}

function scratchWith(store, contents) {
  const scratch = mkdtempSync(join(store, 'new-'));
  mkdirSync(join(scratch, 'sub'));
  for (const [name, text] of Object.entries(contents)) writeFileSync(join(scratch, name), text);
  return scratch;
}

test('the store lies in the cache', () => {
  assert.equal(storeDir({ XDG_CACHE_HOME: '/cache' }), '/cache/typevisor/lab');
});

test('a finished part is ready, with a manifest of what it was made from', async t => {
  const store = await storeWith(t);
  const { state, dir, manifest } = readPart(NAME, store);
  assert.equal(state, 'ready');
  assert.equal(dir, join(store, NAME));
  assert.deepEqual(
    { ...manifest, files: Object.keys(manifest.files) },
    { format: 1, ...ABOUT, files: ['kernel', 'sub/config'] },
  );
  assert.equal(manifest.files.kernel.sha256, await sha256Of(join(dir, 'kernel')));
  assert.equal(await verifyPart(NAME, '6.1', store), dir);
});

test('a part that was never made is missing', async t => {
  const store = await storeWith(t);
  assert.deepEqual(readPart('roots/aarch64', store), { state: 'missing' });
  await assert.rejects(
    verifyPart('roots/aarch64', undefined, store),
    /roots\/aarch64 is not there. Run: npm run lab -- prepare$/,
  );
});

test('a truncated file is seen without reading it', async t => {
  const store = await storeWith(t);
  const file = join(store, NAME, 'kernel');
  truncateSync(file, 5);
  assert.deepEqual(readPart(NAME, store), { state: 'damaged', file, why: 'it has 5 bytes, not 12' });
  await assert.rejects(
    verifyPart(NAME, '6.1', store),
    error =>
      error instanceof Stop && /kernel: it has 5 bytes, not 12. Run: npm run lab -- prepare 6\.1$/.test(error.message),
  );
});

test('a file that has gone is named', async t => {
  const store = await storeWith(t);
  rmSync(join(store, NAME, 'sub/config'));
  assert.deepEqual(readPart(NAME, store), {
    state: 'damaged',
    file: join(store, NAME, 'sub/config'),
    why: 'it is missing',
  });
});

test('changed content of the same size is found by its hash, and remembered', async t => {
  const store = await storeWith(t);
  writeFileSync(join(store, NAME, 'kernel'), 'kernel bytfs');
  assert.equal(readPart(NAME, store).state, 'ready');
  await assert.rejects(
    verifyPart(NAME, '6.1', store),
    /kernel: its content has changed since it was fetched. Run: npm run lab -- prepare 6\.1$/,
  );
  assert.deepEqual(readPart(NAME, store).state, 'damaged');
  assert.match(readPart(NAME, store).why, /its content has changed/);
  assert.equal(readPart(NAME, store).file, join(store, NAME, 'kernel'));
});

/** @type {[string, (file: string) => void, string][]} */
const HARMS = [
  ['no manifest', file => rmSync(file), 'it is missing'],
  ['a torn manifest', file => truncateSync(file, 20), 'it is no JSON'],
  ['a manifest that is no object', file => writeFileSync(file, 'null'), 'its format is undefined, not 1'],
  ['another format', file => writeFileSync(file, '{"format":2}'), 'its format is 2, not 1'],
  [
    'a manifest without files',
    file => writeFileSync(file, '{"format":1,"files":{}}'),
    'it does not say what belongs here',
  ],
  [
    'a file without a hash',
    file => writeFileSync(file, '{"format":1,"files":{"kernel":{"size":12}}}'),
    'it does not say what belongs here',
  ],
  ['text after the manifest', file => appendFileSync(file, 'x'), 'it is no JSON'],
];

for (const [what, harm, why] of HARMS)
  test(`a part with ${what} is damaged`, async t => {
    const store = await storeWith(t);
    const file = join(store, NAME, 'manifest.json');
    harm(file);
    assert.deepEqual(readPart(NAME, store), { state: 'damaged', file, why });
  });

test('a file that was written since is no longer untouched, whatever its size', async t => {
  const store = await storeWith(t);
  assert.equal(isUntouched(readPart(NAME, store)), true);
  utimesSync(join(store, NAME, 'kernel'), 1, 1);
  assert.equal(isUntouched(readPart(NAME, store)), false);
});

test('a new part takes the place of a damaged one', async t => {
  const store = await storeWith(t);
  truncateSync(join(store, NAME, 'kernel'), 5);
  await finishPart(scratchWith(store, { kernel: 'newer kernel' }), NAME, { ...ABOUT, version: '6.1.0-10' }, store);
  assert.equal(readPart(NAME, store).manifest.version, '6.1.0-10');
  assert.equal(readFileSync(join(store, NAME, 'kernel'), 'utf8'), 'newer kernel');
});
