// The end of a run over several machines.
import assert from 'node:assert/strict';
import test from 'node:test';
import { failureLines, notThere, skipLines, table, totalOf } from '../lib/results.mjs';
import { parseList } from '../lib/skips.mjs';
import { emptyTally } from '../lib/tally.mjs';

const skip = (title, reason) => ({ title, reason });
const host = { machine: 'host', results: [['ava', { ...emptyTally(), passed: 700 }]], differences: [], seconds: 61.4 };
const old = {
  machine: '5.10',
  results: [
    ['core', { ...emptyTally(), passed: 9, failed: 1, failures: ['slots: moves'], skips: [skip('a', 'needs x')] }],
    ['ava', { ...emptyTally(), passed: 90, skips: [skip('b', 'needs x'), skip('c', 'needs y')] }],
    ['machine', { ...emptyTally(), failed: 1, problem: 'the kernel panicked' }],
  ],
  differences: ['skipped, but not in the list: ava: c (needs y)'],
  seconds: 100,
};

test('a skip that the list does not know counts as a failure', () => {
  assert.deepEqual(totalOf([host, old]), { passed: 799, failed: 3, skipped: 3 });
});

test('the table has a row a machine, with the reasons of its skips', () => {
  assert.deepEqual(table([host, old]), [
    'machine  passed  failed  skipped  seconds  skipped because',
    'host        700       0        0       61',
    '5.10         99       3        3      100  needs x (2), needs y (1)',
  ]);
});

test('what failed is named with its suite', () => {
  assert.deepEqual(failureLines(old), [
    'core: slots: moves',
    'machine: the kernel panicked',
    'skipped, but not in the list: ava: c (needs y)',
  ]);
  assert.deepEqual(skipLines(old), ['core: a (needs x)', 'ava: b (needs x)', 'ava: c (needs y)']);
});

test('a list may stand on another', () => {
  assert.deepEqual(
    parseList('# why\n@common\nava: b (needs y)\n', name => [`${name}: a (needs z)`]),
    ['common: a (needs z)', 'ava: b (needs y)'],
  );
});

test('a machine that cannot be had is a skip, and a failure where the lab is required', () => {
  const free = notThere('6.1', 'no QEMU', {});
  assert.deepEqual(totalOf([free]), { passed: 0, failed: 0, skipped: 1 });
  assert.deepEqual(skipLines(free), ['lab: every test in machine 6.1 (no QEMU)']);
  const required = notThere('6.1', 'no QEMU', { TYPEVISOR_REQUIRE: 'lab' });
  assert.deepEqual(totalOf([required]), { passed: 0, failed: 1, skipped: 0 });
  assert.deepEqual(failureLines(required), ['lab: every test in machine 6.1: no QEMU']);
});
