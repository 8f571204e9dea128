import { getEventListeners } from 'node:events';
import { readdirSync } from 'node:fs';
import { machine, SPIN } from '../helpers/guests.ts';
import { onKvm as test } from '../helpers/needs.ts';
import { inWords, scaled } from '../helpers/scale.ts';

const RUNS = scaled(1000);

// Alone in its file: what the process holds is counted.
test(`vcpu.run: ${inWords(RUNS)} aborted runs leave nothing: no listener, no fd, no thread, nothing that Node waits for`, async t => {
  using guest = machine(SPIN);
  const signals: AbortSignal[] = [];
  const abort = async (): Promise<void> => {
    const controller = new AbortController();
    signals.push(controller.signal);
    const running = guest.vcpu.run({ signal: controller.signal });
    controller.abort();
    t.is(await t.throwsAsync(running, { any: true }), controller.signal.reason);
  };
  await abort(); // whatever is made once, is made
  const before = held();
  for (let round = 0; round < RUNS; round += 1) await abort();
  t.deepEqual(held(), before);
  t.true(signals.every(signal => getEventListeners(signal, 'abort').length === 0));
  const next = guest.vcpu.run();
  guest.vcpu.kick();
  t.deepEqual(await next, { kind: 'intr' });
});

function held(): object {
  return {
    fds: readdirSync('/proc/self/fd').length,
    threads: readdirSync('/proc/self/task').length,
    // What the facade keeps Node alive with; the rest is ava's.
    timeouts: process.getActiveResourcesInfo().filter(name => name === 'Timeout').length,
  };
}
