// The rules of the house.
import assert from 'node:assert/strict';
import test from 'node:test';
import { problemsOf } from '../lib/tidy.mjs';

const messages = (path, text) => problemsOf(path, text).map(({ line, message }) => `${line}: ${message}`);
/** Puts a word together, so that this file does not hold what it forbids. */
const word = (...parts) => parts.join('');

test('a path of one machine is found, a relative or a home one is not', () => {
  assert.deepEqual(messages('a.md', word('see /ro', 'ot/x')), ['1: a path of one machine']);
  assert.deepEqual(
    messages(
      'a.md',
      word('see /usr/share/seabios, ~/.cache, ./wo', 'rk/x, $HOME/wo', 'rk/x and https://a.example/wo', 'rk/x'),
    ),
    [],
  );
});

test('a registry host is found', () => {
  assert.equal(messages('a.toml', word('https://registry.npm', 'js.org/')).length, 1);
  assert.equal(messages('a.sh', word('http://deb.deb', 'ian.org/')).length, 1);
});

test('unfinished code is found in code, and needs its issue in a comment', () => {
  assert.equal(messages('a.rs', word('to', 'do!()')).length, 1);
  assert.equal(messages('a.rs', word('// TO', 'DO: later')).length, 1);
  assert.deepEqual(messages('a.rs', '// TODO(#12): later'), []);
  assert.deepEqual(messages('a.md', word('TO', 'DO')), []);
});

test('a long file is found, unless it is a test or generated', () => {
  const long = 'x\n'.repeat(401);
  assert.deepEqual(messages('crates/core/src/vm.rs', long), ['0: 401 lines; at most 400, tests apart']);
  assert.deepEqual(messages('crates/core/tests/kvm/main.rs', long), []);
  assert.deepEqual(messages('ts/names.ts', `// @generated\n${long}`), []);
});

test('every function the addon exports catches panics; what is no function need not', () => {
  const file = 'crates/node/src/vm.rs';
  const bare = '#[napi]\npub fn close(&self) {}';
  assert.deepEqual(messages(file, bare), ['1: #[napi] without catch_unwind']);
  assert.deepEqual(messages('crates/core/src/vm.rs', bare), []);
  assert.deepEqual(messages(file, '#[napi(catch_unwind)]\n/// Closes.\n#[must_use]\npub fn close(&self) {}'), []);
  assert.deepEqual(messages(file, '#[napi(\n  js_name = "x",\n  catch_unwind\n)]\npub async fn x() {}'), []);
  assert.equal(messages(file, '#[napi(\n  js_name = "x"\n)]\npub async fn x() {}').length, 1);
  assert.deepEqual(messages(file, '#[napi(object)]\npub struct Slot {}\n#[napi]\nimpl Vm {}'), []);
});

test('package-lock.json records no download address', () => {
  assert.equal(messages('package-lock.json', '"resolved": "https://a.example/x.tgz"').length, 1);
});
