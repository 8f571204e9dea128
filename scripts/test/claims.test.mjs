// Claims: reading their files, judging their commands.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { judge, parseClaim, table } from '../lib/claims.mjs';
import { ROOT } from '../lib/paths.mjs';

const claim = (expect, more = {}) =>
  parseClaim(JSON.stringify({ id: 'x', sentence: 's', command: 'c', expect, ...more }), 'x.json');
const ended = (stdout, more = {}) => ({ status: 0, signal: null, stdout, stderr: '', ...more });

test('a value is compared with the whole output', () => {
  assert.deepEqual(judge(claim(3), ended('3\n')), { verdict: 'PASS', figure: '3' });
  assert.deepEqual(judge(claim('a'), ended('b')), { verdict: 'FAIL', reason: 'expected a', figure: 'b' });
});

test('a regex is looked for in every line, and what it found is the figure', () => {
  const got = judge(claim({ regex: '^found \\d+$' }), ended('start\nfound 7\nend'));
  assert.deepEqual(got, { verdict: 'PASS', figure: 'found 7' });
  assert.equal(judge(claim({ regex: 'x' }), ended('y')).verdict, 'FAIL');
});

test('a bound holds the last number printed', () => {
  assert.deepEqual(judge(claim({ max: 10 }), ended('run 99: 9.5 ms')), { verdict: 'PASS', figure: 9.5 });
  assert.deepEqual(judge(claim({ min: 2, max: 10 }), ended('1')), { verdict: 'FAIL', reason: 'below 2', figure: 1 });
  assert.equal(judge(claim({ max: 10 }), ended('11')).reason, 'above 10');
  assert.equal(judge(claim({ max: 10 }), ended('none')).reason, 'no number printed');
});

test('a bound holds a field of printed JSON', () => {
  const json = '{ "runs": [{ "ratio": 1.25 }] }';
  assert.equal(judge(claim({ max: 2, field: 'runs.0.ratio' }), ended(json)).figure, 1.25);
  assert.equal(judge(claim({ max: 2, field: 'runs.1.ratio' }), ended(json)).verdict, 'FAIL');
  assert.equal(judge(claim({ max: 2, field: 'a' }), ended('not json')).verdict, 'FAIL');
});

test('exit code 77 is NOT HERE, with the last line of stderr as the reason', () => {
  const got = judge(claim(1), ended('', { status: 77, stderr: 'looking\nno such processor\n' }));
  assert.deepEqual(got, { verdict: 'NOT HERE', reason: 'no such processor' });
});

test('a command that fails or hangs is a FAIL, whatever it printed', () => {
  assert.equal(judge(claim(1), ended('1', { status: 3, stderr: 'bad' })).reason, 'exit code 3: bad');
  assert.equal(judge(claim(1), ended('1', { status: null, signal: 'SIGSEGV' })).verdict, 'FAIL');
  assert.equal(judge(claim(1, { timeoutS: 5 }), ended('1', { timedOut: true })).reason, 'no end after 5 s');
});

const refused = (more, message) => assert.throws(() => claim(1, more), message);

test('a file that says something else is refused by name', () => {
  refused({ expects: 1 }, /x\.json: unknown key "expects"/);
  refused({ needs: ['gpu'] }, /unknown need "gpu"/);
  refused({ expect: { regexp: 'a' } }, /"expect" must be/);
  refused({ command: undefined }, /"command" must be a string/);
  refused({ id: 'y' }, /its id is y/);
});

test('the table aligns verdicts', () => {
  const rows = table([
    { id: 'a', verdict: 'PASS', figure: 3 },
    { id: 'bcd', verdict: 'NOT HERE', reason: 'no KVM' },
  ]);
  assert.deepEqual(rows, ['a    PASS      3', 'bcd  NOT HERE  no KVM']);
});

/** Runs the program on those claims; `{ status, stdout, stderr }`. */
function claims(files, ...args) {
  const folder = mkdtempSync(join(tmpdir(), 'claims-'));
  try {
    for (const file of files) writeFileSync(join(folder, `${file.id}.json`), JSON.stringify(file));
    const command = [join(ROOT, 'scripts/claims.mjs'), '--folder', folder, ...args];
    return spawnSync(process.execPath, command, { encoding: 'utf8' });
  } finally {
    rmSync(folder, { recursive: true });
  }
}

test('claims with one command are shown by one run of it, and one that fails makes the exit code', () => {
  // Prints another number at every run.
  const command = 'echo $PPID $$';
  const files = ['a', 'b'].map(id => ({ id, sentence: 's', command, expect: { min: 1 } }));
  const { status, stdout } = claims(files, '--json');
  const { results } = JSON.parse(stdout);
  assert.deepEqual([status, results.map(({ verdict }) => verdict)], [0, ['PASS', 'PASS']]);
  assert.equal(results[0].figure, results[1].figure);
  const wrong = claims([...files, { id: 'c', sentence: 's', command: 'echo 2', expect: 3 }]);
  assert.equal(wrong.status, 1);
  assert.match(wrong.stdout, /^c +FAIL +2; expected 3$/m);
});

test('an unknown claim and an unknown option are refused', () => {
  const [unknown, strange] = [claims([], 'no-such'), claims([], '--no-such')];
  assert.deepEqual([unknown.status, strange.status], [2, 2]);
  assert.match(unknown.stderr, /no such claim: no-such/);
  const nowhere = spawnSync(process.execPath, [join(ROOT, 'scripts/claims.mjs'), '--folder', '/no/such'], {
    encoding: 'utf8',
  });
  assert.equal(nowhere.status, 2);
  assert.match(nowhere.stderr, /^such\/ENOENT/m);
});
