// The addon's packages below npm/ say the same as package.json.
import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { ROOT } from '../lib/paths.mjs';

const read = path => JSON.parse(readFileSync(join(ROOT, path), 'utf8'));
const CPU = { x86_64: 'x64', aarch64: 'arm64' };
const LIBC = { gnu: 'glibc', musl: 'musl' };
const SHARED = ['version', 'license', 'engines', 'description', 'keywords'];

test('npm/: a package for each target of package.json, with its licence, and no other', () => {
  const main = read('package.json');
  const expected = main.napi.targets.map(target => {
    const [arch, , , libc] = target.split('-');
    return { folder: `linux-${CPU[arch]}-${libc}`, cpu: CPU[arch], libc: LIBC[libc] };
  });
  assert.deepEqual(readdirSync(join(ROOT, 'npm')).toSorted(), expected.map(({ folder }) => folder).toSorted());
  for (const { folder, cpu, libc } of expected) {
    const own = read(`npm/${folder}/package.json`);
    for (const key of SHARED) assert.deepEqual(own[key], main[key], `${folder}: ${key}`);
    assert.equal(own.name, `${main.name}-${folder}`);
    assert.equal(own.main, `${main.name}.${folder}.node`);
    assert.deepEqual([own.os, own.cpu, own.libc], [['linux'], [cpu], [libc]]);
    assert.deepEqual(own.files, [own.main, 'LICENSE-MIT', 'LICENSE-APACHE']);
    for (const licence of own.files.slice(1))
      assert.equal(
        readFileSync(join(ROOT, 'npm', folder, licence), 'utf8'),
        readFileSync(join(ROOT, licence), 'utf8'),
        `${folder}: ${licence}`,
      );
  }
});
