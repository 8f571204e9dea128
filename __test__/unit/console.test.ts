import { PassThrough, Writable } from 'node:stream';
import { setImmediate } from 'node:timers/promises';
import test from 'ava';
import { debugConsole } from '../../ts/console.ts';
import { fixture } from '../helpers/child.ts';
import { fakeConsole } from '../helpers/fake-console.ts';
import { throwsCode, wrong } from '../helpers/throws.ts';

test('debugConsole: takes a function or a Writable', t => {
  for (const sink of [() => undefined, new PassThrough(), process.stdout]) {
    t.deepEqual(debugConsole(sink), { device: 'debug-console', sink });
  }
  for (const sink of [undefined, null, 'stdout', {}, { write: 1 }]) {
    throwsCode(t, 'ERR_INVALID_ARGUMENT', () => debugConsole(wrong(sink)));
  }
});

test('console: a wake-up hands on what there is; with nothing there, nothing', t => {
  const got: string[] = [];
  const { fake, reader, wake } = fakeConsole((chunk: Uint8Array) => got.push(Buffer.from(chunk).toString()));
  fake.text = 'one';
  wake();
  wake();
  fake.text = 'two';
  reader.drain();
  t.deepEqual(got, ['one', 'two']);
});

test('console: a stream that asks to wait gets no more until it drains', async t => {
  const writes: (() => void)[] = [];
  const got: string[] = [];
  const stream = new Writable({
    highWaterMark: 1,
    write: (chunk: Buffer, _encoding, done) => {
      got.push(chunk.toString());
      writes.push(done);
    },
  });
  const { fake, wake } = fakeConsole(stream);
  fake.text = 'first';
  wake();
  fake.text = 'second';
  wake();
  t.deepEqual([got, fake.text], [['first'], 'second']);
  writes.shift()?.();
  await setImmediate();
  t.deepEqual([got, fake.text], [['first', 'second'], '']);
});

/** How a stream comes to take nothing any more, while or before it is written to. */
const ENDS: readonly (readonly [string, (stream: Writable) => void])[] = [
  ['was destroyed', stream => stream.destroy()],
  ['failed', stream => stream.destroy(new Error('gone'))],
  ['was ended', stream => stream.end()],
];

for (const [what, end] of ENDS) {
  test(`console: a stream that ${what} before holds nothing back`, async t => {
    const stream = new Writable({ write: () => t.fail('it was written to') });
    stream.on('error', () => undefined);
    end(stream);
    const { fake, wake } = fakeConsole(stream);
    for (const text of ['first', 'second', 'third']) {
      fake.text = text;
      wake();
      t.is(fake.text, '');
      await setImmediate();
    }
  });
}

for (const [how, options] of [
  ['as streams do', {}],
  ['without a close', { emitClose: false }],
  ['without being destroyed', { autoDestroy: false }],
] as const) {
  test(`console: a stream that fails while it is waited for, ${how}, holds nothing back`, async t => {
    let fail: (error: Error) => void = () => t.fail('nothing was written');
    const stream = new Writable({
      highWaterMark: 1,
      write: (_chunk, _encoding, done) => {
        fail = done;
      },
      ...options,
    });
    const errors: unknown[] = [];
    stream.on('error', error => errors.push(error));
    const { fake, wake } = fakeConsole(stream);
    fake.text = 'first';
    wake();
    fake.text = 'second';
    wake();
    t.is(fake.text, 'second');
    fail(new Error('gone'));
    await setImmediate();
    t.is(fake.text, '');
    fake.text = 'third';
    wake();
    t.is(fake.text, '');
    t.is(errors.length, 1);
    t.deepEqual(
      stream.eventNames().filter(name => name !== 'error'),
      [],
    );
  });
}

test('console: that an unhandled error of a stream ends the process stays so while it is waited for', async t => {
  const { code, stdout } = await fixture('failing-sink');
  t.is(code, 0);
  t.is(stdout, 'waiting\nuncaught: from the stream\n');
});

test('console: releasing hands on the rest and then listens no more', t => {
  const got: string[] = [];
  const { fake, reader, wake } = fakeConsole((chunk: Uint8Array) => got.push(Buffer.from(chunk).toString()));
  fake.text = 'rest';
  reader.release();
  t.true(fake.released);
  fake.text = 'late';
  wake();
  t.deepEqual(got, ['rest']);
});

test('console: an error thrown by the function is an uncaught exception, and output goes on', async t => {
  const { code, stdout } = await fixture('throwing-sink');
  t.is(code, 0);
  t.is(stdout, 'chunk 1\nwake returned\nuncaught: from the sink\nchunk 2\n');
});
