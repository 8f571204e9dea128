// Counting what test runners print.
import assert from 'node:assert/strict';
import test from 'node:test';
import { closingLine, settle, sum, tallyCargo, tallyTap, tapPoint } from '../lib/tally.mjs';

const CARGO = `
running 3 tests
test range::tests::overlaps ... ok
test memory::tests::needs_hugepages ... ignored, no huge pages
test exit::tests::io ... FAILED

test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s

running 3 tests
test a_guest_halts                  ... ok
test private_memory_converts        ... ignored (needs memory-attributes)
test [needs x86_64] a port is read  ... ignored

test result: ok. 1 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.10s
`.split('\n');

test('cargo: counts every binary, names what failed, and keeps the reasons of both kinds of skip', () => {
  assert.deepEqual(tallyCargo(CARGO), {
    passed: 2,
    failed: 1,
    failures: ['exit::tests::io'],
    skips: [
      { title: 'memory::tests::needs_hugepages', reason: 'no huge pages' },
      { title: 'private_memory_converts', reason: 'needs memory-attributes' },
      { title: 'a port is read', reason: 'needs x86_64' },
    ],
    finished: true,
  });
});

test('cargo: a binary that dies without its result leaves the tally unfinished', () => {
  const died = [...CARGO, 'running 4 tests', 'test a_guest_crashes ... '];
  assert.equal(tallyCargo(died).finished, false);
  assert.equal(tallyCargo([]).finished, false);
});

test('cargo: colour does not hide a result', () => {
  const line = 'test result: \u001b[32mok\u001b[0m. 7 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out';
  assert.equal(tallyCargo(['running 7 tests', line]).passed, 7);
});

test('tap: a point, a failure, a skip with its reason in the title or behind the mark', () => {
  assert.deepEqual(tapPoint('ok 4 - vcpu › vcpu.run: halts'), { ok: true, title: 'vcpu › vcpu.run: halts' });
  assert.deepEqual(tapPoint('not ok 5 - x'), { ok: false, title: 'x' });
  assert.deepEqual(tapPoint('ok 1 - a: b (needs smm) # SKIP'), { ok: true, title: 'a: b', skip: 'needs smm' });
  assert.deepEqual(tapPoint('ok 1 - a (x) # SKIP not here'), { ok: true, title: 'a (x)', skip: 'not here' });
  assert.deepEqual(tapPoint('ok 1 - a # SKIP'), { ok: true, title: 'a', skip: 'no reason given' });
  assert.equal(tapPoint('    ok 1 - inner'), undefined);
  assert.equal(tapPoint('# ok 1 - a comment'), undefined);
});

test('tap: counts top-level points, a todo as a failure, and names what failed', () => {
  const lines = [
    'TAP version 13',
    'ok 1 - a',
    '    ok 1 - in a',
    'not ok 2 - later # TODO',
    'ok 3 - c # SKIP why',
    '1..3',
  ];
  assert.deepEqual(tallyTap(lines), {
    passed: 1,
    failed: 1,
    failures: ['later # TODO'],
    skips: [{ title: 'c', reason: 'why' }],
    finished: true,
  });
});

test('tap: a plan that is missing or not kept leaves the tally unfinished', () => {
  assert.equal(tallyTap(['ok 1 - a']).finished, false);
  assert.equal(tallyTap(['ok 1 - a', '1..2']).finished, false);
});

test('settle: a runner that died, hung or failed for no stated reason counts as one failure', () => {
  const done = { passed: 2, failed: 0, failures: [], skips: [], finished: true };
  assert.equal(settle(done, { status: 0, signal: null }), done);
  assert.equal(settle(done, { status: 101, signal: null }).failed, 1);
  assert.equal(settle(done, { status: null, signal: 'SIGSEGV' }).problem, 'ended by SIGSEGV');
  assert.equal(settle(done, { status: null, signal: 'SIGKILL', timedOut: true }).problem, 'ran out of time');
  assert.equal(settle({ ...done, finished: false }, { status: 0, signal: null }).failed, 1);
  assert.equal(settle({ ...done, failed: 3 }, { status: 1, signal: null }).failed, 3);
});

test('the closing line is the sum', () => {
  const one = { passed: 2, failed: 1, skips: [{ title: 'a', reason: 'b' }] };
  assert.equal(closingLine(sum([one, one])), '4 passed, 2 failed, 2 skipped');
});
