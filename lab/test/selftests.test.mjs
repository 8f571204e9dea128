// The kernel's selftests: verdicts, what a test had to say, the report, and machines that die under them.
import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { Follower } from '../selftests/follow.mjs';
import { runAll } from '../selftests/in-lab.mjs';
import { leftOut } from '../selftests/left-out.mjs';
import { json, reasons, resultLine, summary, table } from '../selftests/report.mjs';
import { runTest } from '../selftests/run.mjs';
import { parseSession } from '../selftests/session.mjs';
import { lastWords, verdictOf } from '../selftests/verdict.mjs';

/** A folder with one script, `test`. */
function folderWith(context, script) {
  const folder = mkdtempSync(join(tmpdir(), 'typevisor-selftests-'));
  context.after(() => rmSync(folder, { recursive: true }));
  writeFileSync(join(folder, 'test'), `#!/bin/bash\n${script}\n`);
  chmodSync(join(folder, 'test'), 0o755);
  return folder;
}

/** Processes that were started with this argument. */
function withArgument(argument) {
  const commands = readdirSync('/proc').filter(name => /^\d+$/.test(name));
  return commands.filter(pid => {
    try {
      return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').includes(argument);
    } catch (error) {
      if (error.code === 'ENOENT' || error.code === 'ESRCH') return false;
      throw error;
    }
  });
}

test('each way to end has its verdict', () => {
  const ended = { status: 0, signal: null, timedOut: false };
  assert.equal(verdictOf(ended), 'pass');
  assert.equal(verdictOf({ ...ended, status: 4 }), 'skip');
  assert.equal(verdictOf({ ...ended, status: 1 }), 'fail');
  assert.equal(verdictOf({ ...ended, status: 254 }), 'fail');
  assert.equal(verdictOf({ ...ended, status: null, signal: 'SIGSEGV' }), 'crash');
  assert.equal(verdictOf({ ...ended, status: null, signal: 'SIGKILL', timedOut: true }), 'timeout');
  assert.equal(verdictOf({ ...ended, status: null }), 'fail'); // it could not be started
});

test('a skip is told by its reason', () => {
  const said = ['Random seed: 0x6b8b4567', '1..0 # SKIP - Requirement not met: kvm_has_cap(KVM_CAP_X86_SMM)', ''];
  assert.equal(lastWords(said, 'skip'), 'Requirement not met: kvm_has_cap(KVM_CAP_X86_SMM)');
});

test('a failure is told by its assertion and message, not by the trace', () => {
  const said = [
    'guest mode 4',
    '==== Test Assertion Failure ====',
    '  x86/state_test.c:289: exit_reason == (2)',
    '  pid=12 tid=12 errno=4 - Interrupted system call',
    '     1\t0x0000000000401f5c: main at state_test.c:289',
    '     2\t0x00000000004c1b2a: __libc_start_main at ??:?',
    '  Wanted KVM exit reason: 2 (IO), got: 17 (INTERNAL_ERROR)',
  ];
  const wanted = 'x86/state_test.c:289: exit_reason == (2): Wanted KVM exit reason: 2 (IO), got: 17 (INTERNAL_ERROR)';
  assert.equal(lastWords(said, 'fail'), wanted);
  assert.equal(lastWords(said.slice(0, 5), 'fail'), 'x86/state_test.c:289: exit_reason == (2)');
  assert.equal(lastWords(['ok 1 a', 'not ok 2 b', '# Totals: pass:1 fail:1'], 'fail'), 'not ok 2 b');
});

test('otherwise the last line counts, cut to a line of people', () => {
  assert.equal(lastWords(['one', 'two', ''], 'timeout'), 'two');
  assert.equal(lastWords([], 'crash'), '');
  assert.equal(lastWords(['x'.repeat(300)], 'timeout').length, 200);
});

test('the session of a process is read past its name', () => {
  assert.equal(parseSession('71 (a) b) R 1 70 69 0 -1'), 69);
  assert.equal(parseSession('71 (a) Z 1 70 69 0 -1'), undefined);
});

test('a test is run, and told by its exit code', async context => {
  const folder = folderWith(context, 'echo "1..0 # SKIP - no such thing"; exit 4');
  const { name, verdict, said } = await runTest(folder, 'test', 30);
  assert.deepEqual({ name, verdict, said }, { name: 'test', verdict: 'skip', said: 'no such thing' });
});

test('a test that cannot be started fails, and says so', async context => {
  const { verdict, said } = await runTest(folderWith(context, ''), 'absent', 30);
  assert.equal(verdict, 'fail');
  assert.match(said, /absent.*ENOENT/);
});

test('a test that hangs is ended with all that it started, process groups of their own included', async context => {
  const mark = `${4000 + (process.pid % 1000)}.125`;
  const folder = folderWith(context, `set -m; echo begun; sleep ${mark} & sleep ${mark}`);
  const { verdict, said } = await runTest(folder, 'test', 1);
  assert.deepEqual({ verdict, said }, { verdict: 'timeout', said: 'begun' });
  assert.deepEqual(withArgument(mark), []);
});

const HOST = {
  machine: 'host',
  version: '7.2.99-1',
  kernel: '6.18',
  timeoutS: 60,
  results: [
    { name: 'x86/smm_test', verdict: 'skip', seconds: 0.01, said: 'no SMM' },
    { name: 'steal_time', verdict: 'pass', seconds: 1.25, said: 'all well' },
  ],
};
const LAB = { ...HOST, machine: 'lab', results: [{ name: 'steal_time', verdict: 'timeout', seconds: 180, said: '' }] };

test('the table has a row for each test and a column for each machine', () => {
  const wanted = ['test          host  lab', 'x86/smm_test  skip  -', 'steal_time    pass  timeout'];
  assert.equal(table([HOST, LAB]), wanted.join('\n'));
});

test('verdicts are counted, the best first', () => {
  assert.equal(summary(HOST.results), '1 pass, 1 skip');
  assert.equal(summary([]), 'none ran');
});

test('a line for each test gives the reason of what did not pass', () => {
  assert.equal(resultLine(HOST.results[0], 12), 'skip     x86/smm_test    0.0 s  no SMM');
  assert.equal(resultLine(HOST.results[1], 12), 'pass     steal_time      1.3 s');
  assert.deepEqual(reasons([HOST, LAB]), ['host: x86/smm_test: skip: no SMM', 'lab: steal_time: timeout']);
});

test('the JSON is whole', () => {
  assert.deepEqual(JSON.parse(json(HOST)), { schemaVersion: 1, ...HOST });
});

test('what ran when the machine died is known', () => {
  const results = [];
  let now = 1000;
  const follower = new Follower(
    result => results.push(result),
    () => now,
  );
  const result = { name: 'a', verdict: 'pass', seconds: 1, said: '' };
  const text = `${JSON.stringify({ kernel: '7.2' })}\n{"start":"a"}\n${JSON.stringify(result)}\nnoise\n{"start":"b"}\n{"na`;
  for (const part of [text.slice(0, 40), text.slice(40)]) follower.take(Buffer.from(part), 'stdout');
  now = 3500;
  assert.deepEqual(results, [result]);
  assert.equal(follower.kernel, '7.2');
  assert.equal(follower.running.name, 'b');
  assert.equal(follower.running.seconds(), 2.5);
  assert.deepEqual(follower.other, ['noise']);
});

test('what is left out is left out with a reason, where it says', () => {
  const list = [
    { name: 'a', where: 'everywhere', why: 'x' },
    { name: 'b', where: 'lab', why: 'y' },
  ];
  assert.deepEqual(
    ['host', '6.1'].map(machine => leftOut(machine, 'a', list)),
    ['x', 'x'],
  );
  assert.deepEqual(
    ['host', '6.1'].map(machine => leftOut(machine, 'b', list)),
    [undefined, 'y'],
  );
  assert.equal(leftOut('host', 'c', list), undefined);
});

/** A machine that dies under test `deadly`, and runs the others. */
function mortal(deadly, boots) {
  return async (names, onOutput) => {
    boots.push(names);
    const say = object => onOutput(Buffer.from(`${JSON.stringify(object)}\n`), 'stdout');
    say({ kernel: '7.2' });
    for (const name of names) {
      say({ start: name });
      if (name === deadly) return { code: 125, problem: 'the kernel panicked' };
      say({ name, verdict: 'pass', seconds: 1, said: '' });
    }
    return { code: 0 };
  };
}

test('a machine that dies takes one test with it', async () => {
  const boots = [];
  const shown = [];
  const { kernel, ran } = await runAll('lab', ['a', 'b', 'c'], mortal('b', boots), (result, number) =>
    shown.push(number),
  );
  assert.equal(kernel, '7.2');
  assert.deepEqual(boots, [['a', 'b', 'c'], ['c']]);
  assert.deepEqual(shown, [1, 2, 3]);
  const verdicts = ran.map(({ name, verdict, said }) => [name, verdict, said]);
  assert.deepEqual(verdicts, [
    ['a', 'pass', ''],
    ['b', 'crash', 'the machine died: the kernel panicked'],
    ['c', 'pass', ''],
  ]);
});

/** A machine that has no Node.js. */
async function withoutNode(names, onOutput) {
  onOutput(Buffer.from('sh: node: not found\n'), 'stderr');
  return { code: 127 };
}

test('a machine that never begins is an error with what it said', async () => {
  const running = runAll('lab', ['a'], withoutNode, () => {});
  await assert.rejects(running, /machine lab could not run them\nsh: node: not found/);
});
