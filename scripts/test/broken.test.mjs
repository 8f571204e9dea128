// The rules that can be broken: that the list, the code and the tests it names belong together, and what a run says.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { RULES, colourOf, compilerThatBreaks, demandName, demandsOf } from '../lib/broken.mjs';
import { ROOT } from '../lib/paths.mjs';
import { filesBelow } from '../lib/stale.mjs';
import { tallyVerdicts } from '../lib/tally.mjs';

const text = file => readFileSync(join(ROOT, file), 'utf8');
const rust = folder =>
  filesBelow([folder])
    .filter(file => file.endsWith('.rs'))
    .map(text)
    .join('\n');
const sorted = words => Array.from(words, String).toSorted();
const names = sorted(RULES.map(({ name }) => name));
const run = (...args) =>
  spawnSync(process.execPath, ['scripts/test-broken.mjs', ...args], { cwd: ROOT, encoding: 'utf8' });

test('broken: the rules are those of the code, and of the cfg that Cargo.toml knows', () => {
  const inCode = rust('crates/core/src').matchAll(/broken = "([\w-]+)"/g);
  assert.deepEqual(sorted(new Set([...inCode].map(([, name]) => name))), names);
  const values = text('Cargo.toml').matchAll(/cfg\(broken, values\("([\w-]+)"\)\)/g);
  assert.deepEqual(sorted([...values].map(([, name]) => name)), names);
});

test('broken: each rule says what breaks, and demands tests that there are', () => {
  const sources = {
    unit: rust('crates/core/src'),
    kvm: rust('crates/core/tests/kvm'),
    loom: rust('crates/core/tests/loom'),
  };
  for (const { name, breaks, red } of RULES) {
    assert.ok(breaks.length > 0 && red.length > 0, name);
    for (const demand of red) {
      const { target, test: title } = demand;
      const wanted = target === 'kvm' ? `"${title}"` : `fn ${title.split('::').at(-1)}()`;
      assert.ok(sources[target].includes(wanted), `${name}: ${demandName(demand)}`);
    }
  }
});

test('broken: a test that several rules demand runs once unbroken, and once in each machine', () => {
  const here = { target: 'kvm', test: 'a' };
  const there = { ...here, machine: '6.1' };
  assert.deepEqual(demandsOf([{ red: [here, there] }, { red: [{ ...here }] }]), [here, there]);
});

test('broken: the compiler is called as it would be, with the cfg behind', () => {
  const { status, stdout } = spawnSync(compilerThatBreaks('hold-early'), ['printf', '%s|', 'a b', 'c'], {
    encoding: 'utf8',
  });
  assert.deepEqual([status, stdout], [0, 'a b|c|--cfg|broken="hold-early"|']);
});

const RESULT = 'test result: ok.';
const one = (passed, failed, ignored) => [
  'running 1 test',
  ...(ignored ? ['test [needs x86_64] run: a ... ignored'] : []),
  `${RESULT} ${passed} passed; ${failed} failed; ${ignored} ignored; 0 measured; 9 filtered out; finished in 0.00s`,
];

test('broken: red is a test that failed, hung or died; a test that is not there is neither', () => {
  const end = { status: 0, signal: null, timedOut: false };
  assert.deepEqual(colourOf(end, one(1, 0, 0)), { colour: 'green', how: 'passed' });
  assert.deepEqual(colourOf({ ...end, status: 101 }, one(0, 1, 0)), { colour: 'red', how: 'failed' });
  assert.deepEqual(colourOf({ ...end, timedOut: true, signal: 'SIGKILL' }, []), { colour: 'red', how: 'hung' });
  assert.deepEqual(colourOf({ ...end, status: null, signal: 'SIGSEGV' }, []), {
    colour: 'red',
    how: 'was ended by SIGSEGV',
  });
  assert.deepEqual(colourOf(end, one(0, 0, 1)), { colour: 'none', how: 'needs x86_64' });
  assert.equal(colourOf(end, one(0, 0, 0)).colour, 'lost');
  assert.equal(colourOf({ ...end, status: 127 }, []).colour, 'lost');
});

test('broken: verdicts are counted, and the closing line has to agree', () => {
  const lines = [
    '── unbroken',
    '  ok a: passed (0.1 s)',
    'skip b › c (needs x86_64 (KVM))',
    'FAIL d: passed',
    '     why',
    '',
  ];
  const closing = '1 passed, 1 failed, 1 skipped';
  assert.deepEqual(tallyVerdicts([...lines, closing]), {
    passed: 1,
    failed: 1,
    failures: ['d: passed'],
    skips: [{ title: 'b › c', reason: 'needs x86_64 (KVM)' }],
    finished: true,
  });
  assert.equal(tallyVerdicts(lines).finished, false);
  assert.equal(tallyVerdicts([...lines, '2 passed, 1 failed, 1 skipped']).finished, false);
});

test('broken: --list names every rule with its tests, --help says how, and what there is not is refused', () => {
  const list = run('--list').stdout;
  for (const { name, red } of RULES)
    assert.ok(list.includes(`${name}: `) && red.every(demand => list.includes(demandName(demand))), name);
  assert.match(run('--help').stdout, /^npm run test:broken/);
  const { status, stderr } = run('nothing');
  assert.deepEqual([status, /there is no nothing/.test(stderr)], [2, true]);
  assert.equal(run('--nothing').status, 2);
});
