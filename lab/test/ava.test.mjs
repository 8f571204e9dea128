// The stand-in for ava can fail: each assertion, each way for a test or a file to go wrong.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { context } from '../suite/assertions.mjs';
import { placeAva } from '../suite/build.mjs';

const folder = mkdtempSync(join(tmpdir(), 'typevisor-ava-'));
const main = placeAva(folder);
after(() => rmSync(folder, { recursive: true }));

let count = 0;

/** Runs a test file with `body`; gives its exit code, its lines and its points. */
function run(body, env = {}) {
  return runFiles({ 'unit › case': body }, env);
}

/** The same with several files by title, in one process. */
function runFiles(bodies, env = {}) {
  const args = Object.entries(bodies).flatMap(([title, body]) => {
    const file = join(folder, `case-${++count}.mjs`);
    writeFileSync(file, `import test from 'ava';\n${body}`);
    return [title, file];
  });
  const { status, stdout, stderr } = spawnSync(process.execPath, [main, ...args], {
    encoding: 'utf8',
    timeout: 60_000,
    env: { ...process.env, NODE_TEST_CONTEXT: undefined, ...env },
  });
  const lines = stdout.split('\n');
  return { status, stdout, stderr, points: lines.filter(line => /^(not )?ok /.test(line)), plan: lines.at(-2) };
}

/** For each assertion: arguments with which it holds, and with which it does not. */
const CASES = {
  is: [
    [[Number.NaN, Number.NaN]],
    [
      [0, -0],
      [{}, {}],
      ['1', 1],
    ],
  ],
  not: [[[1, 2]], [[1, 1]]],
  true: [[[true]], [[1]]],
  false: [[[false]], [[0], [undefined]]],
  truthy: [[[1]], [[0]]],
  falsy: [[[0]], [[1]]],
  deepEqual: [
    [
      [{ a: [1n] }, { a: [1n] }],
      [Uint8Array.of(1), Uint8Array.of(1)],
    ],
    [
      [{ a: 1, b: 2 }, { a: 1 }],
      [{ a: 1 }, { a: 1, b: undefined }],
      [[1], [1, 2]],
      [1, 1n],
      [Uint8Array.of(1), [1]],
      [0, -0],
    ],
  ],
  like: [
    [
      [{ a: 1, b: { c: [1, { d: 2, e: 3 }] } }, { b: { c: [1, { d: 2 }] } }],
      [new Error('x'), { message: 'x' }],
    ],
    [
      [{ a: 1 }, { a: 2 }],
      [{ a: 1 }, { b: undefined }],
      [{ a: [1] }, { a: [1, 2] }],
      [undefined, { a: 1 }],
      [{ a: Uint8Array.of(1, 2) }, { a: Uint8Array.of(1) }],
    ],
  ],
  regex: [[['abc', /b/u]], [['abc', /d/u]]],
  notRegex: [[['abc', /d/u]], [['abc', /b/u]]],
  pass: [[[]], []],
  fail: [[], [[], ['why']]],
  throws: [
    [
      [() => boom(new RangeError('x')), { instanceOf: RangeError, name: 'RangeError', message: /x/u }],
      [() => boom(1), { any: true }],
    ],
    [
      [() => 1],
      [() => Promise.resolve()],
      [() => boom(1)],
      [() => boom(new Error('x')), { instanceOf: TypeError }],
      [() => boom(new Error('x')), { message: 'y' }],
      [() => boom(new Error('x')), { code: 'ERR' }],
      [() => boom(new Error('x')), { mesage: 'x' }],
    ],
  ],
  notThrows: [[[() => 1]], [[() => boom(new Error('x'))]]],
};

/** The same for those that give a promise. */
const ASYNC_CASES = {
  throwsAsync: [
    [[Promise.reject(new Error('x')), { message: 'x' }], [async () => boom(new Error('x'))]],
    [
      [Promise.resolve(1)],
      [async () => 1],
      [async () => boom(new Error('x')), { message: 'y' }],
      [async () => boom('x')],
    ],
  ],
  notThrowsAsync: [[[Promise.resolve()]], [[async () => boom(new Error('x'))]]],
};

function boom(error) {
  throw error;
}

for (const [name, [good, bad]] of Object.entries({ ...CASES, ...ASYNC_CASES })) {
  test(`t.${name}: holds where it should, throws where it does not, and is counted`, async () => {
    const state = { assertions: 0 };
    const t = context('title', state);
    for (const args of good) await t[name](...args);
    for (const args of bad) await assert.rejects(async () => t[name](...args), `${name} ${bad.indexOf(args)}`);
    assert.equal(state.assertions, good.length + bad.length);
  });
}

test('every assertion has its cases here', () => {
  const others = new Set(['title', 'timeout', 'teardown']);
  const all = Object.keys(context('title', {})).filter(name => !others.has(name));
  assert.deepEqual(all.toSorted(), Object.keys({ ...CASES, ...ASYNC_CASES }).toSorted());
});

test('t.throws, t.throwsAsync: give the error', async () => {
  const t = context('title', { assertions: 0 });
  const error = new Error('x');
  assert.equal(
    t.throws(() => boom(error)),
    error,
  );
  assert.equal(await t.throwsAsync(Promise.reject(error)), error);
});

test('a file: tests in order with their titles, skips with their reason in the title, then the plan', () => {
  const { status, points, plan } = run(`
    test('first', t => t.pass());
    test.skip('second (needs a thing)', t => t.fail());
    test.serial('third', async t => t.is(await 1, 1));
    test('fourth', test.macro((t, a, b) => t.is(a, b)), 4, 4);`);
  assert.deepEqual(points, [
    'ok 1 - unit › case › first',
    'ok 2 - unit › case › second (needs a thing) # SKIP',
    'ok 3 - unit › case › third',
    'ok 4 - unit › case › fourth',
  ]);
  assert.deepEqual([status, plan], [0, '1..4']);
});

/** Bodies that must fail, and what is said. */
const BROKEN = {
  'an assertion that does not hold': [
    "test('x', t => t.is(1, 2));",
    /not ok 1 - unit › case › x\n.*actual: 1, expected: 2/,
  ],
  'a test that throws': [
    "test('x', t => { t.pass(); throw new Error('oops'); });",
    /not ok 1 - unit › case › x\n +Error: oops/,
  ],
  'a test that rejects': ["test('x', async t => { t.pass(); throw new Error('oops'); });", /not ok 1/],
  'no assertion': ["test('x', () => {});", /it made no assertion/],
  'an assertion that there is not': ["test('x', t => t.snapshot(1));", /t\.snapshot is not a function/],
  'a hang that ava would end': [
    "test('x', async t => { t.timeout(50); t.pass(); await new Promise(r => setTimeout(r, 1000)); });",
    /timed out after 50 ms/,
  ],
  'a promise that nobody settles': [
    "test('x', async t => { t.pass(); await new Promise(() => {}); });",
    /the process ended while "x" ran/,
  ],
  'no test': ['', /there is no test in it/],
  'an error at the top': ["throw new Error('top');", /could not be run\n +Error: top/],
  'a syntax error': ['test(', /could not be run/],
  'two tests of one title': ["test('x', t => t.pass()); test('x', t => t.pass());", /two tests titled "x"/],
  'a rejection that nobody handles': [
    "test('x', async t => { Promise.reject(new Error('lost')); t.pass(); await new Promise(setImmediate); });",
    /a rejection nobody handled/,
  ],
  'an exception that nobody catches': [
    "test('x', t => { setTimeout(() => { throw new Error('late'); }, 20); t.pass(); });",
    /an exception nobody caught/,
  ],
  'a teardown that throws': [
    "test('x', t => { t.teardown(() => { throw new Error('down'); }); t.pass(); });",
    /Error: down/,
  ],
  'a before that throws': [
    "test.before(() => { throw new Error('first'); }); test('x', t => t.pass());",
    /not ok 1 - unit › case › before/,
  ],
  'an after.always that throws': [
    "test.after.always(() => { throw new Error('last'); }); test('x', t => t.pass());",
    /not ok 2 - unit › case › after\.always/,
  ],
  'an exit in the middle': ["test('x', t => { t.pass(); process.exit(0); });", /the process ended while "x" ran/],
};

for (const [what, [body, said]] of Object.entries(BROKEN)) {
  test(`a failure: ${what}`, () => {
    const { status, stdout, points, plan } = run(body);
    assert.match(stdout, said);
    assert.equal(status, 1);
    assert.equal(plan, `1..${points.length}`);
  });
}

test('after a failed test the others run, teardowns too, and after.always; after does not', () => {
  const { stdout, points } = run(`
    test.after(() => console.log('after'));
    test.after.always(() => console.log('always'));
    test('x', t => { t.teardown(() => console.log('down')); t.fail(); });
    test('y', t => t.pass());`);
  assert.deepEqual(points, ['not ok 1 - unit › case › x', 'ok 2 - unit › case › y']);
  assert.match(stdout, /down\n/);
  assert.match(stdout, /always\n/);
  assert.doesNotMatch(stdout, /after\n/);
});

test('files in one process have their own tests and hooks, and one that cannot be run does not keep the others from it', () => {
  const body = `test.after(t => console.log('tidied')); test('a', t => t.pass());`;
  const bodies = { 'unit › one': body, 'unit › two': 'nonsense(', 'unit › three': body };
  const { status, stdout, points, plan } = runFiles(bodies);
  assert.equal(status, 1);
  assert.deepEqual(points, [
    'ok 1 - unit › one › a',
    'not ok 2 - unit › two: could not be run',
    'ok 3 - unit › three › a',
  ]);
  assert.equal(plan, '1..3');
  assert.equal(stdout.match(/^tidied$/gm)?.length, 2);
  const took = stdout.split('\n').filter(line => line.startsWith('# '));
  assert.deepEqual(
    took.map(line => line.replace(/: .*/, '')),
    ['# unit › one', '# unit › two', '# unit › three'],
  );
});

test('a process that ends in one of several files says in which, and which test ran', () => {
  const bodies = { 'unit › one': `test('a', t => t.pass());`, 'unit › two': `test('b', t => process.exit(0));` };
  const { status, points } = runFiles({ ...bodies, 'unit › three': `test('c', t => t.pass());` });
  assert.equal(status, 1);
  assert.deepEqual(points, ['ok 1 - unit › one › a', 'not ok 2 - unit › two: the process ended while "b" ran']);
});
