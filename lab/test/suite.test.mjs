// The suite's output, told apart and counted.
import assert from 'node:assert/strict';
import test from 'node:test';
import { Sections, tallies, twiceIfItDies } from '../lib/suite.mjs';

const CORE = [
  'running 2 tests',
  'test a ... ok',
  'test b ... ignored, needs x',
  'test result: ok. 1 passed; 0 failed; 1 ignored; 0 measured',
];
const AVA = ['TAP version 13', 'ok 1 - kvm › a’s', 'ok 2 - b (needs y) # SKIP', '1..2'];

function sectionsOf(text) {
  const shown = [];
  const sections = new Sections(line => shown.push(line));
  const bytes = Buffer.from(text);
  for (let i = 0; i < bytes.length; i += 1) sections.take(bytes.subarray(i, i + 1), 'stdout'); // as it may come
  sections.flush();
  return { sections, shown };
}

test('output is told apart by its headings, and TAP shown for people', () => {
  const { sections, shown } = sectionsOf(['early', '── core', ...CORE, '── ava', ...AVA].join('\n'));
  assert.deepEqual(sections.lines, { core: CORE, ava: AVA });
  assert.deepEqual(shown, ['early', '── core', ...CORE, '── ava', '  ok kvm › a’s', 'skip b (needs y)']);
});

test('sections become tallies', () => {
  const [[core, first], [ava, second]] = tallies({ core: CORE, ava: AVA }, { code: 0 });
  assert.deepEqual([core, first.passed, first.failed, first.skips.length], ['core', 1, 0, 1]);
  assert.deepEqual([ava, second.passed, second.skips], ['ava', 1, [{ title: 'b', reason: 'needs y' }]]);
});

test('a section that never came, and one cut short, are failures', () => {
  const results = Object.fromEntries(tallies({ core: CORE.slice(0, 2) }, { code: 0 }));
  assert.equal(results.core.failed, 1);
  assert.equal(results.ava.failed, 1);
});

test('a machine that died is a failure beside what its tests say', () => {
  const results = tallies({ core: CORE, ava: AVA }, { code: 125, problem: 'the kernel panicked' });
  assert.deepEqual(results.at(-1)[0], 'machine');
  assert.equal(results.at(-1)[1].problem, 'the kernel panicked');
});

test('an exit code that no failed test explains is a failure', () => {
  assert.match(tallies({ core: CORE, ava: AVA }, { code: 3 }).at(-1)[1].problem, /exit code 3/);
});

/** Tries that end so, one after the other. */
function ends(...list) {
  return twiceIfItDies(
    async () => list.shift(),
    () => undefined,
  );
}

test('a machine whose kernel dies is tried once more, and says so; a second death is a failure', async () => {
  const died = { results: tallies({}, { code: 125, problem: 'the kernel panicked' }), died: true };
  const lived = { results: tallies({ core: CORE, ava: AVA }, { code: 0 }), died: false };
  assert.deepEqual(await ends(lived), { results: lived.results });
  const second = await ends(died, lived);
  assert.equal(second.results, lived.results);
  assert.match(second.again, /died/);
  assert.equal((await ends(died, died, lived)).results.at(-1)[1].problem, 'the kernel panicked');
});

test('a test that failed before the machine died is a failure', async () => {
  const lines = [
    'running 1 test',
    'test a ... FAILED',
    'test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured',
  ];
  const first = { results: tallies({ core: lines }, { code: 125, problem: 'the kernel panicked' }), died: true };
  const lived = { results: tallies({ core: CORE, ava: AVA }, { code: 0 }), died: false };
  assert.equal((await ends(first, lived)).results, first.results);
});

test('a machine that ends in another way is tried once', async () => {
  let tries = 0;
  const hung = { results: tallies({}, { code: 124, problem: 'the time was up' }), died: false };
  await twiceIfItDies(async () => ((tries += 1), hung));
  assert.equal(tries, 1);
});
