// Where the lab's kernel is looked for, what its name depends on, and whether its configuration was taken.
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { kernelName, labKernel, unmetLines } from '../kernel/build.mjs';
import { finishPart } from '../lib/store.mjs';

const read = name => readFileSync(new URL(`../kernel/${name}`, import.meta.url), 'utf8');
const VERSION = '7.2.99-1';

/** A cache of its own for one test; gives its folder for the lab. */
function emptyCache(context) {
  const folder = mkdtempSync(join(tmpdir(), 'typevisor-kernel-'));
  const before = process.env.XDG_CACHE_HOME;
  process.env.XDG_CACHE_HOME = folder;
  context.after(() => {
    if (before === undefined) delete process.env.XDG_CACHE_HOME;
    else process.env.XDG_CACHE_HOME = before;
    rmSync(folder, { recursive: true });
  });
  const lab = join(folder, 'typevisor/lab');
  mkdirSync(lab, { recursive: true });
  return lab;
}

/** Puts a kernel into the cache under the name that `inputs` have. */
async function cacheKernel(lab, version, inputs = {}) {
  const scratch = mkdtempSync(join(lab, 'new-'));
  writeFileSync(join(scratch, 'kernel'), version);
  const name = kernelName({ config: read('x86.config'), patch: read('exit-on-missing.patch'), version, ...inputs });
  await finishPart(scratch, `kernels/${name}`, { version: '7.2.99-lab', packages: [], source: version });
  return join(lab, 'kernels', name, 'kernel');
}

test('the name changes with the configuration, the patch and the version', () => {
  const inputs = { config: 'a', patch: 'b', version: 'c' };
  const name = kernelName(inputs);
  assert.match(name, /^x86_64-lab-[0-9a-f]{16}$/);
  assert.equal(kernelName({ ...inputs }), name);
  for (const key of Object.keys(inputs)) assert.notEqual(kernelName({ ...inputs, [key]: 'other' }), name);
  assert.notEqual(
    kernelName({ config: 'ab', patch: '', version: 'c' }),
    kernelName({ config: 'a', patch: 'b', version: 'c' }),
  );
});

test('TYPEVISOR_LAB=stock does without, whatever else is there', () => {
  assert.equal(labKernel({ TYPEVISOR_LAB: 'stock', TYPEVISOR_LAB_IMAGE: '/nowhere' }).state, 'stock');
});

test('TYPEVISOR_LAB_IMAGE is taken as it is, and must be there', context => {
  const image = join(emptyCache(context), 'image');
  writeFileSync(image, 'a kernel');
  assert.deepEqual(labKernel({ TYPEVISOR_LAB_IMAGE: image }), {
    state: 'ready',
    path: image,
    from: 'TYPEVISOR_LAB_IMAGE',
  });
  assert.throws(() => labKernel({ TYPEVISOR_LAB_IMAGE: `${image}.not` }), /TYPEVISOR_LAB_IMAGE=.*no such file/);
  assert.throws(() => labKernel({ TYPEVISOR_LAB_IMAGE: join(image, '..') }), /no such file/);
});

test('a kernel of these very inputs is found in the cache, the newest first', async context => {
  const lab = emptyCache(context);
  assert.deepEqual(labKernel({}), { state: 'missing', why: 'its own kernel has not been built' });
  await cacheKernel(lab, VERSION, { patch: 'an older patch' });
  assert.equal(labKernel({}).state, 'missing');
  await cacheKernel(lab, '7.2.9-1');
  const newest = await cacheKernel(lab, VERSION);
  assert.deepEqual(labKernel({}), {
    state: 'ready',
    path: newest,
    from: 'cache',
    part: newest.slice(lab.length + 1, -'/kernel'.length),
  });
});

test('a damaged kernel is named', async context => {
  const path = await cacheKernel(emptyCache(context), VERSION);
  writeFileSync(path, 'cut');
  const { state, why } = labKernel({});
  assert.equal(state, 'missing');
  assert.match(why, /damaged: .*kernel \(it has 3 bytes/);
});

test('a configuration that the source does not take is noticed', () => {
  const wanted = '# words\nCONFIG_A=y\nCONFIG_B="x"\nCONFIG_C=n\nCONFIG_D=n\n';
  const taken = '# CONFIG_C is not set\nCONFIG_A=y\nCONFIG_B="x"\n';
  assert.deepEqual(unmetLines(wanted, taken), []);
  assert.deepEqual(unmetLines(wanted, '\nCONFIG_A=m\nCONFIG_D=y\n'), ['CONFIG_A=y', 'CONFIG_B="x"', 'CONFIG_D=n']);
});
