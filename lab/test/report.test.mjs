// What became of a machine, told from what it left behind.
import assert from 'node:assert/strict';
import test from 'node:test';
import { lastLines, panicText, parseHas, parseStatus, verdict } from '../lib/report.mjs';

const STATUS = 'has default 231=1 10=509\nstart 3.25\nend 7 9.50\n';
const PANIC = [
  'Linux version 6.1',
  'BUG: kernel NULL pointer dereference, address: 0000000000000000',
  'Oops: 0002 [#1] PREEMPT SMP',
  'Kernel panic - not syncing: Fatal exception',
].join('\r\n');
const ended = { status: STATUS, console: '', stopped: undefined, limitS: 10, emulatorError: '' };

test('status lines say what the machine has, when the command started, and how it ended', () => {
  assert.deepEqual(parseStatus(STATUS), {
    has: 'default 231=1 10=509',
    started: 3.25,
    end: { status: 7, at: 9.5 },
    failed: undefined,
  });
  assert.deepEqual(parseStatus(''), { has: undefined, started: undefined, end: undefined, failed: undefined });
  assert.equal(parseStatus('end 7').end, undefined, 'a line cut short is none');
});

test('capabilities are told apart by type of VM', () => {
  const has = parseHas('default 231=1 10=-1 software-protected 233=8');
  assert.deepEqual(has, {
    default: new Map([
      [231, 1],
      [10, -1],
    ]),
    'software-protected': new Map([[233, 8]]),
  });
});

test('a command that ran to its end gives its exit code, whatever the console says', () => {
  assert.deepEqual(verdict({ ...ended, console: PANIC }), { code: 7 });
});

test('a panic is shown from its first line on', () => {
  assert.equal(panicText(PANIC), PANIC.split('\r\n').slice(1).join('\n'));
  assert.equal(panicText('all is well'), undefined);
  const trap = 'fine\ninvalid opcode: 0000 [#1] SMP\nRIP: 0010:somewhere\nKernel panic - not syncing: Fatal exception';
  assert.equal(panicText(trap), trap.slice('fine\n'.length), 'the reason, too, where it is no oops');
  const { code, problem, died, detail } = verdict({ ...ended, status: 'start 3\n', console: PANIC });
  assert.deepEqual([code, problem, died], [125, 'the kernel panicked', true]);
  assert.equal(verdict({ ...ended, status: '', console: PANIC }).died, true, 'at boot');
  assert.match(detail, /^BUG: kernel NULL pointer.*not syncing: Fatal exception$/s);
});

test('a limit that was passed says which and how long it was', () => {
  const hung = { ...ended, status: 'start 3\n', stopped: 'command', console: 'last words' };
  assert.deepEqual(verdict(hung), {
    code: 124,
    problem: 'the time was up (10 s), and the machine was stopped',
    detail: 'last words',
  });
  assert.equal(verdict({ ...ended, status: '', stopped: 'boot' }).problem, 'the machine did not boot in 10 s');
});

test('a machine that died without a word is told by when it was', () => {
  const died = { ...ended, status: 'start 3\n', emulatorError: 'qemu: terminated' };
  assert.deepEqual(verdict(died), {
    code: 125,
    problem: 'the machine died while the command ran',
    detail: 'qemu: terminated',
    died: true,
  });
  const early = verdict({ ...died, status: '' });
  assert.deepEqual([early.problem, early.died], ['the machine died while it booted', false]);
  assert.deepEqual(verdict({ ...died, status: 'failed no KVM\n' }), { code: 125, problem: 'no KVM' });
});

test('only the last lines of a console are shown', () => {
  assert.equal(lastLines('a\nb\nc\n', 2), 'b\nc');
});
