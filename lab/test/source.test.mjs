// Which kernel source of the cache is taken, and that a tree to build in leaves it as it is.
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { SERIES, buildTree, cachedSource } from '../lib/source.mjs';
import { compareVersions } from '../lib/versions.mjs';

/** A folder of sources with these names, `whole` ones noted as such. */
function folderOf(context, names, whole = names) {
  const folder = mkdtempSync(join(tmpdir(), 'typevisor-source-'));
  context.after(() => rmSync(folder, { recursive: true }));
  for (const name of names) mkdirSync(join(folder, name));
  for (const name of whole) writeFileSync(join(folder, name, '.typevisor.json'), '{}');
  return folder;
}

test('versions are compared as numbers', () => {
  const versions = [`${SERIES}.12-1~bpo13+1`, `${SERIES}.9-1~bpo13+1`, `${SERIES}.12-2~bpo13+1`];
  assert.deepEqual(versions.toSorted(compareVersions), [versions[1], versions[0], versions[2]]);
});

test('the newest whole source of the series is taken', context => {
  const names = [`linux-${SERIES}.9-1`, `linux-${SERIES}.12-1`, `linux-${SERIES}.13-1`, 'linux-99.1.1-1'];
  const folder = folderOf(context, names, [names[0], names[1], names[3]]);
  assert.deepEqual(cachedSource(folder), { version: `${SERIES}.12-1`, dir: join(folder, names[1]) });
});

test('an empty cache has none', context => {
  const folder = folderOf(context, []);
  assert.equal(cachedSource(folder), undefined);
  assert.equal(cachedSource(join(folder, 'absent')), undefined);
});

test('the patch says whose licence it is under', () => {
  const patch = readFileSync(new URL('../kernel/exit-on-missing.patch', import.meta.url), 'utf8');
  assert.match(patch, /^SPDX-License-Identifier: GPL-2\.0\n/);
  assert.ok(existsSync(new URL('../kernel/README.md', import.meta.url)));
});

test('a patch that does not fit leaves no tree, and says so', async context => {
  const folder = folderOf(context, ['linux', 'build']);
  writeFileSync(join(folder, 'linux/Makefile'), 'all:\n');
  const building = buildTree({ dir: join(folder, 'linux') }, 'kernel', 'aa', join(folder, 'build'));
  await assert.rejects(building, /exit-on-missing\.patch does not fit the source in linux/);
  assert.equal(existsSync(join(folder, 'build/kernel-aa')), false);
});

test('a tree that is there is gone on with, and those of other keys are deleted', async context => {
  const folder = folderOf(context, ['kernel-aa', 'kernel-bb', 'selftests-bb']);
  writeFileSync(join(folder, 'kernel-bb.log'), '');
  const source = { dir: join(folder, 'absent') };
  assert.equal(await buildTree(source, 'kernel', 'aa', folder), join(folder, 'kernel-aa'));
  assert.deepEqual(readdirSync(folder).toSorted(), ['kernel-aa', 'selftests-bb']);
});
