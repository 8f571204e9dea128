import { getEventListeners } from 'node:events';
import test from 'ava';
import { onAbort } from '../../ts/abort.ts';

test('onAbort: all who wait are called once, by one listener, and none is left', t => {
  const controller = new AbortController();
  const { signal } = controller;
  let calls = 0;
  const act = (): void => void (calls += 1);
  const [first] = [onAbort(signal, act), onAbort(signal, act), onAbort(signal, act)];
  t.is(getEventListeners(signal, 'abort').length, 1);
  first?.();
  controller.abort();
  t.is(calls, 2);
  t.is(getEventListeners(signal, 'abort').length, 0);
});

test('onAbort: the last to stop waiting takes the listener with it, twice is harmless', t => {
  const { signal } = new AbortController();
  const stops = [onAbort(signal, () => t.fail()), onAbort(signal, () => t.fail())];
  for (const stop of stops) stop();
  t.is(getEventListeners(signal, 'abort').length, 0);
  const stop = onAbort(signal, () => undefined);
  for (const late of stops) late();
  t.is(getEventListeners(signal, 'abort').length, 1);
  stop();
  t.is(getEventListeners(signal, 'abort').length, 0);
});

test('onAbort: without a signal there is nothing to stop', t => {
  t.notThrows(onAbort(undefined, () => t.fail()));
});
