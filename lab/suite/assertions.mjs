// ava's assertions, those that our tests use: each throws where it does not hold, as ava's do. What is not here is a
// TypeError, and so a failure: nothing passes unnoticed.
import assert from 'node:assert/strict';
import { inspect } from 'node:util';

/** The `t` of one test. An assertion that does not hold throws; `state` knows how many there were. */
export function context(title, state) {
  const counted =
    act =>
    (...args) => {
      state.assertions += 1;
      return act(...args);
    };
  const t = {
    is: (actual, expected, message) => claim(Object.is(actual, expected), message, { actual, expected }),
    not: (actual, other, message) => claim(!Object.is(actual, other), message, { actual, other }),
    true: (value, message) => claim(value === true, message, { actual: value, expected: true }),
    false: (value, message) => claim(value === false, message, { actual: value, expected: false }),
    truthy: (value, message) => claim(value, message, { actual: value }),
    falsy: (value, message) => claim(!value, message, { actual: value }),
    deepEqual: (actual, expected, message) => same(actual, expected, message),
    like: (actual, selector, message) => same(selected(actual, selector), selector, message),
    regex: (text, regex, message) => claim(regex.test(text), message, { text, regex }),
    notRegex: (text, regex, message) => claim(!regex.test(text), message, { text, regex }),
    pass: () => undefined,
    fail: message => claim(false, message ?? 't.fail()', {}),
    throws: (act, expected, message) => thrown(outcome(act), expected, message),
    throwsAsync: async (act, expected, message) => thrown(await outcomeAsync(act), expected, message),
    notThrows: (act, message) => notThrown(outcome(act), message),
    notThrowsAsync: async (act, message) => notThrown(await outcomeAsync(act), message),
  };
  for (const [name, act] of Object.entries(t)) t[name] = counted(act);
  t.title = title;
  t.timeout = ms => state.limit(ms);
  t.teardown = act => state.teardowns.unshift(act);
  return t;
}

function claim(holds, message, values) {
  if (!holds)
    throw new assert.AssertionError({
      message: `${message ?? 'the assertion does not hold'}: ${inspect(values, { depth: 6 })}`,
    });
}

function same(actual, expected, message) {
  try {
    assert.deepStrictEqual(actual, expected);
  } catch (error) {
    if (message) error.message = `${message}: ${error.message}`;
    throw error;
  }
}

/** What of `actual` the selector names; objects and arrays are looked into, all else is compared whole. */
function selected(actual, selector) {
  const looked = selector !== null && typeof selector === 'object' && (Array.isArray(selector) || isPlain(selector));
  if (!looked || actual === null || typeof actual !== 'object') return actual;
  const part = Array.isArray(selector) ? [] : Object.create(Object.getPrototypeOf(selector));
  for (const key of Reflect.ownKeys(selector)) {
    if (key !== 'length' && key in actual) part[key] = selected(actual[key], selector[key]);
  }
  return part;
}

function isPlain(value) {
  const prototype = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}

function outcome(act) {
  if (typeof act !== 'function') throw new TypeError('a function is needed');
  let value;
  try {
    value = act();
  } catch (error) {
    return { error, threw: true };
  }
  if (typeof value?.then === 'function') throw new TypeError('a promise came: use the asynchronous assertion');
  return { value };
}

async function outcomeAsync(act) {
  try {
    return { value: await (typeof act === 'function' ? act() : act) };
  } catch (error) {
    return { error, threw: true };
  }
}

/** Holds what was thrown to `{ any, instanceOf, is, message, name, code }`; gives it. */
function thrown({ error, threw, value }, expected = {}, message) {
  const said = typeof expected === 'object' && expected !== null ? expected : {};
  claim(threw, message ?? 'nothing was thrown', { value });
  if (!said.any) claim(error instanceof Error, message ?? 'no Error was thrown', { error });
  if (said.instanceOf) claim(error instanceof said.instanceOf, message ?? `no ${said.instanceOf.name}`, { error });
  if ('is' in said) claim(error === said.is, message ?? 'another error', { error, expected: said.is });
  for (const key of ['name', 'code']) if (key in said) claim(error[key] === said[key], message ?? key, { error });
  if ('message' in said) claim(fits(error.message, said.message), message ?? 'another message', { error });
  const unknown = Object.keys(said).filter(
    key => !['any', 'instanceOf', 'is', 'name', 'code', 'message'].includes(key),
  );
  if (unknown.length > 0) throw new TypeError(`expectations that there are not: ${unknown.join(', ')}`);
  return error;
}

function fits(message, wanted) {
  if (wanted instanceof RegExp) return wanted.test(message);
  return typeof wanted === 'function' ? wanted(message) : message === wanted;
}

function notThrown({ error, threw }, message) {
  claim(!threw, message ?? 'it threw', { error });
}
