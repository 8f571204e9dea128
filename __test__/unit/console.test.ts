import { PassThrough, Writable } from 'node:stream';
import { setImmediate } from 'node:timers/promises';
import test from 'ava';
import { ConsoleReader, debugConsole } from '../../ts/console.ts';
import { deliver } from '../../ts/mailbox.ts';
import type { NativeConsole } from '../../ts/native.ts';
import { fixture } from '../helpers/child.ts';
import { throwsCode, wrong } from '../helpers/throws.ts';

/** A console whose guest wrote `text`: it is taken once. */
class Fake implements NativeConsole {
  text = '';
  released = false;

  take(): Uint8Array {
    const taken = this.text;
    this.text = '';
    return Buffer.from(taken);
  }

  release(): null {
    this.released = true;
    return null;
  }
}

test('debugConsole: takes a function or a Writable', t => {
  for (const sink of [() => undefined, new PassThrough(), process.stdout]) {
    t.deepEqual(debugConsole(sink), { device: 'debug-console', sink });
  }
  for (const sink of [undefined, null, 'stdout', {}, { write: 1 }]) {
    throwsCode(t, 'ERR_INVALID_ARGUMENT', () => debugConsole(wrong(sink)));
  }
});

test('console: a wake-up hands on what there is; with nothing there, nothing', t => {
  const [fake, got] = [new Fake(), new Array<string>()];
  let id = 0;
  const reader = new ConsoleReader(
    chunk => got.push(Buffer.from(chunk).toString()),
    given => {
      id = given;
      return fake;
    },
  );
  fake.text = 'one';
  deliver(id, null);
  deliver(id, null);
  fake.text = 'two';
  reader.drain();
  t.deepEqual(got, ['one', 'two']);
});

test('console: a stream that asks to wait gets no more until it drains', async t => {
  const [fake, writes] = [new Fake(), new Array<() => void>()];
  const got: string[] = [];
  const stream = new Writable({
    highWaterMark: 1,
    write: (chunk: Buffer, _encoding, done) => {
      got.push(chunk.toString());
      writes.push(done);
    },
  });
  const reader = new ConsoleReader(stream, () => fake);
  fake.text = 'first';
  reader.wake();
  fake.text = 'second';
  reader.wake();
  t.deepEqual([got, fake.text], [['first'], 'second']);
  writes.shift()?.();
  await setImmediate();
  t.deepEqual([got, fake.text], [['first', 'second'], '']);
});

test('console: a stream that fails while it is waited for holds nothing back', async t => {
  const fake = new Fake();
  const stream = new Writable({ highWaterMark: 1, write: () => undefined });
  stream.on('error', () => undefined);
  const reader = new ConsoleReader(stream, () => fake);
  fake.text = 'first';
  reader.wake();
  fake.text = 'second';
  stream.destroy(new Error('gone'));
  await setImmediate();
  t.is(fake.text, '');
  t.deepEqual(
    ['drain', 'close'].map(event => stream.listenerCount(event)),
    [0, 0],
  );
});

test('console: releasing hands on the rest and then listens no more', t => {
  const [fake, got] = [new Fake(), new Array<string>()];
  let id = 0;
  const reader = new ConsoleReader(
    chunk => got.push(Buffer.from(chunk).toString()),
    given => {
      id = given;
      return fake;
    },
  );
  fake.text = 'rest';
  reader.release();
  t.true(fake.released);
  fake.text = 'late';
  deliver(id, null);
  t.deepEqual(got, ['rest']);
});

test('console: an error thrown by the function is an uncaught exception, and output goes on', async t => {
  const { code, stdout } = await fixture('throwing-sink');
  t.is(code, 0);
  t.is(stdout, 'chunk 1\nwake returned\nuncaught: from the sink\nchunk 2\n');
});
