import test from 'ava';
import {
  abortSignal,
  boolean,
  byteArray,
  bytes,
  copied,
  integer,
  isShared,
  oneOf,
  options,
  show,
  uint64,
} from '../../ts/check.ts';
import { throwsCode, wrong } from '../helpers/throws.ts';

test('bytes: takes safe integers from 0', t => {
  for (const value of [0, 1, 2 ** 52, Number.MAX_SAFE_INTEGER]) t.is(bytes(value, 'gpa'), value);
});

test('bytes: a number that is no amount of bytes is ERR_OUT_OF_RANGE', t => {
  for (const value of [-1, 1.5, Number.NaN, Infinity, 2 ** 53]) {
    throwsCode(t, 'ERR_OUT_OF_RANGE', () => bytes(value, 'gpa'));
  }
});

test('bytes: what is no number is ERR_INVALID_ARGUMENT, and the message says what was expected and what came', t => {
  for (const value of ['4096', 4096n, null, undefined, {}, []]) {
    throwsCode(t, 'ERR_INVALID_ARGUMENT', () => bytes(value, 'gpa'));
  }
  const error = throwsCode(t, 'ERR_INVALID_ARGUMENT', () => bytes(4096n, 'gpa'));
  t.is(error?.message, 'gpa must be a number of bytes; got the bigint 4096n');
});

test('integer: both ends are included', t => {
  t.is(integer(-2, 'n', -2, 3), -2);
  t.is(integer(3, 'n', -2, 3), 3);
  for (const value of [-3, 4, 0.5]) throwsCode(t, 'ERR_OUT_OF_RANGE', () => integer(value, 'n', -2, 3));
  throwsCode(t, 'ERR_INVALID_ARGUMENT', () => integer('1', 'n', -2, 3));
});

test('uint64: takes bigints of 64 bits; a number is told how to write it', t => {
  for (const value of [0n, 2n ** 64n - 1n]) t.is(uint64(value, 'rax'), value);
  for (const value of [-1n, 2n ** 64n]) throwsCode(t, 'ERR_OUT_OF_RANGE', () => uint64(value, 'rax'));
  const error = throwsCode(t, 'ERR_INVALID_ARGUMENT', () => uint64(5, 'rax'));
  t.is(error?.message, 'rax must be a bigint (write 5n); got the number 5');
});

test('boolean, oneOf, byteArray, abortSignal: each takes its own and refuses the rest', t => {
  t.true(boolean(true, 'b'));
  t.is(oneOf('b', 'word', ['a', 'b']), 'b');
  t.deepEqual(byteArray(Buffer.of(1), 'data'), Buffer.of(1));
  t.is(abortSignal(undefined, 'signal'), undefined);
  const { signal } = new AbortController();
  t.is(abortSignal(signal, 'signal'), signal);
  for (const check of [boolean, byteArray, abortSignal]) {
    throwsCode(t, 'ERR_INVALID_ARGUMENT', () => check(1, 'argument'));
  }
  t.is(
    throwsCode(t, 'ERR_INVALID_ARGUMENT', () => oneOf('c', 'word', ['a', 'b']))?.message,
    "word must be 'a' or 'b'; got the string \"c\"",
  );
});

test('options: absent is empty, a misspelt key is refused with those there are', t => {
  t.deepEqual(options<{ id?: number }>(undefined, 'options', ['id']), {});
  const given = { id: 1 };
  t.is(options(given, 'options', ['id', 'size']), given);
  for (const value of [null, 1, 'id', [], true]) {
    throwsCode(t, 'ERR_INVALID_ARGUMENT', () => options<object>(wrong(value), 'options', ['id']));
  }
  const error = throwsCode(t, 'ERR_INVALID_ARGUMENT', () => options<object>({ sice: 1 }, 'options', ['gpa', 'size']));
  t.is(error?.message, "options has no 'sice'; it has gpa, size");
});

test('show: is one short line for anything, and calls nothing', t => {
  const hostile = new Proxy({ constructor: undefined }, { get: () => t.fail('called') });
  const table: readonly [unknown, string][] = [
    ['a\nb', 'the string "a\\nb"'],
    [-0.5, 'the number -0.5'],
    [true, 'the boolean true'],
    [7n, 'the bigint 7n'],
    [undefined, 'undefined'],
    [null, 'null'],
    [[1], 'an array'],
    [() => 1, 'a function'],
    [Symbol('s'), 'a symbol'],
    [new Date(0), 'an object (Date)'],
    [Object.create(null), 'an object (without prototype)'],
    [hostile, 'an object (Object)'],
  ];
  for (const [value, expected] of table) t.is(show(value), expected);
  t.true(show('x'.repeat(1e6)).length < 100);
});

test('copied, isShared: properties of an array’s own are not believed', t => {
  const shared = new Uint8Array(new SharedArrayBuffer(4)).fill(7);
  Object.defineProperties(shared, { buffer: { value: new ArrayBuffer(4) }, length: { value: 2 ** 40 } });
  t.true(isShared(shared));
  t.deepEqual([...copied(shared)], [7, 7, 7, 7]);
  t.false(isShared(copied(shared)));
});
