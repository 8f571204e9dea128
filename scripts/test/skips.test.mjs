// Holding a machine to its list of skips.
import assert from 'node:assert/strict';
import test from 'node:test';
import { differences, parseList, readList, skipLine } from '../lib/skips.mjs';

const smm = skipLine('ava', { title: 'vm: has SMM', reason: 'needs x86-smm' });

test('a skip reads as it stands in a list', () => {
  assert.equal(smm, 'ava: vm: has SMM (needs x86-smm)');
  assert.deepEqual(parseList(`# why\n\n  ${smm}\n`), [smm]);
});

test('a skip too many and a skip too few are both differences', () => {
  assert.deepEqual(differences([smm], [smm]), []);
  assert.deepEqual(differences([], [smm]), [`skipped, but not in the list: ${smm}`]);
  assert.deepEqual(differences([smm], []), [`in the list, but not skipped: ${smm}`]);
});

test('the reason is part of the promise', () => {
  const other = skipLine('ava', { title: 'vm: has SMM', reason: 'needs something else' });
  assert.equal(differences([smm], [other]).length, 2);
});

test('an unknown machine is refused by name', () => {
  assert.throws(() => readList('no-such-machine'), /no-such-machine\.txt: no such list of skips \(there are: /);
});
