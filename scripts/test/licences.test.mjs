// SPDX expressions.
import assert from 'node:assert/strict';
import test from 'node:test';
import { isPermissive } from '../lib/licences.mjs';

for (const good of [
  'MIT',
  'MIT OR GPL-3.0',
  'MIT/Apache-2.0',
  '(MIT OR Apache-2.0) AND Unicode-3.0',
  'Apache-2.0 WITH LLVM-exception',
]) {
  test(`permissive: ${good}`, () => assert.equal(isPermissive(good), true));
}

for (const bad of [
  'GPL-3.0',
  'MIT AND GPL-3.0',
  '(MIT OR GPL-3.0) AND LGPL-2.1',
  'SEE LICENSE IN x',
  '',
  'MIT AND',
  '(MIT',
]) {
  test(`not permissive: "${bad}"`, () => assert.equal(isPermissive(bad), false));
}
