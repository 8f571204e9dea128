import test from 'ava';
import { deliver, forget, nextId, request, subscribe } from '../../ts/mailbox.ts';
import { fixture } from '../helpers/child.ts';

test('mailbox: a delivery reaches the one who waits under its number, once', async t => {
  const [first, second] = [nextId(), nextId()];
  t.not(first, second);
  const both = Promise.all([request(first, () => undefined), request(second, () => undefined)]);
  deliver(second, { kind: 'hlt' }, 7);
  deliver(first, null, 0);
  deliver(first, { kind: 'intr' }, 0);
  t.deepEqual(await both, [
    { payload: null, claim: 0 },
    { payload: { kind: 'hlt' }, claim: 7 },
  ]);
});

test('mailbox: a delivery that nobody waits for is nothing', t => {
  t.notThrows(() => deliver(nextId(), null, 0));
});

test('mailbox: a delivery within the start is not lost', async t => {
  const id = nextId();
  t.deepEqual(await request(id, () => deliver(id, null, 0)), { payload: null, claim: 0 });
});

test('mailbox: where the start throws, the promise rejects with that', async t => {
  const error = new Error('refused');
  const promise = request(nextId(), () => {
    throw error;
  });
  t.is(await t.throwsAsync(promise), error);
});

test('mailbox: a subscriber is woken each time, until it is forgotten', t => {
  let wakes = 0;
  const id = subscribe(() => {
    wakes += 1;
  });
  deliver(id, null, 0);
  deliver(id, null, 0);
  forget(id);
  deliver(id, null, 0);
  t.is(wakes, 2);
});

test('mailbox: Node stays alive for a pending promise', async t => {
  const { code, stdout } = await fixture('liveness', { args: ['pending'] });
  t.deepEqual([code, stdout], [0, 'delivered\n']);
});

test('mailbox: Node does not stay alive for a subscription', async t => {
  t.is((await fixture('liveness')).code, 0);
});
