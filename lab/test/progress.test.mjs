// Lines of progress, in place on a terminal and one after the other elsewhere.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Progress, clock, progressLine } from '../lib/progress.mjs';

test('times read as on a clock', () => {
  assert.deepEqual([0, 59.9, 60, 723, 3723].map(clock), ['0:00', '0:59', '1:00', '12:03', '1:02:03']);
});

test('a line says how much of about how much; a total that was too small is left out', () => {
  assert.equal(progressLine('kernel', 431, 1430, 'objects', 200), 'kernel: 431 of about 1430 objects (3:20)');
  assert.equal(progressLine('kernel', 1500, 1430, 'objects', 200), 'kernel: 1500 objects (3:20)');
});

/** What a stream of this kind gets to see of two states of which the second comes twice. */
function shown(context, isTTY) {
  context.mock.timers.enable({ apis: ['setInterval'] });
  const written = [];
  let line = 'one';
  const progress = new Progress(() => line, { isTTY, write: text => written.push(text) });
  context.mock.timers.tick(10_000);
  line = 'two';
  context.mock.timers.tick(10_000);
  progress.end();
  return written;
}

test('a terminal has one line that is written over', context => {
  assert.deepEqual(shown(context, true), ['\r\x1b[Kone', '\r\x1b[Ktwo', '\n']);
});

test('a log has a line for each change', context => {
  assert.deepEqual(shown(context, undefined), ['one\n', 'two\n']);
});
