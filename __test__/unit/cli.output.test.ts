import { Writable } from 'node:stream';
import test from 'ava';
import { ConsoleOutput } from '../../ts/cli/output.ts';

/** A stream whose reader takes a chunk when told. */
function slow(): { stream: Writable; taken: string[]; takeOne: () => void } {
  const taken: string[] = [];
  const waiting: (() => void)[] = [];
  const stream = new Writable({
    highWaterMark: 1,
    write: (chunk: Buffer, _encoding, done) => {
      waiting.push(() => {
        taken.push(chunk.toString());
        done();
      });
    },
  });
  return { stream, taken, takeOne: () => waiting.shift()?.() };
}

test('ConsoleOutput: asks its writer to wait until the stream has taken what came', async t => {
  const { stream, taken, takeOne } = slow();
  const output = new ConsoleOutput(stream);
  while (output.write('x'.repeat(4096)));
  t.is(output.writableLength, output.writableHighWaterMark);
  t.deepEqual(taken, []);
  const drained = new Promise(resolve => output.once('drain', resolve));
  const reader = setInterval(takeOne, 1);
  await drained;
  clearInterval(reader);
  t.is(taken.join('').length, output.writableHighWaterMark);
});

test('ConsoleOutput.finish: waits until everything is taken', async t => {
  const { stream, taken, takeOne } = slow();
  const output = new ConsoleOutput(stream);
  output.write('one');
  output.write('two\n');
  let finished = false;
  const finishing = output.finish(new AbortController().signal).then(() => (finished = true));
  takeOne();
  await new Promise(resolve => setImmediate(resolve));
  t.false(finished);
  takeOne();
  await finishing;
  t.deepEqual(taken, ['one', 'two\n']);
  t.true(output.atLineStart);
});

test('ConsoleOutput.finish: after an interruption it does not wait for a reader who is asleep', async t => {
  const { stream, taken } = slow();
  const output = new ConsoleOutput(stream);
  output.write('never read');
  const interrupted = new AbortController();
  const finishing = output.finish(interrupted.signal);
  interrupted.abort();
  await finishing;
  t.deepEqual(taken, []);
  t.false(output.atLineStart);
});
