import { getEventListeners } from 'node:events';
import { forever, INCREMENT, machine, MARK, mark, put, SPIN, told } from '../helpers/guests.ts';
import { onKvm as test } from '../helpers/needs.ts';
import { scaled } from '../helpers/scale.ts';

/** Counts, for ever: in memory and at a port. */
const COUNTER = forever(INCREMENT, mark(), put(0x80));

test('vcpu.run: an abort after the delivery is nothing, to this run and the next', async t => {
  using guest = machine(COUNTER);
  const controller = new AbortController();
  t.deepEqual(await guest.vcpu.run({ signal: controller.signal }), out(1));
  controller.abort();
  t.deepEqual(await guest.vcpu.run(), out(2));
  t.is(getEventListeners(controller.signal, 'abort').length, 0);
});

test('vcpu.run: an abort in the guest ends that run alone', async t => {
  using guest = machine(INCREMENT, mark(), SPIN);
  const controller = new AbortController();
  const running = guest.vcpu.run({ signal: controller.signal });
  while (guest.vm.memory.getUint8(MARK) === 0); // it is in the guest
  controller.abort(new Error('enough'));
  t.is(await t.throwsAsync(running), controller.signal.reason);
  const second = guest.vcpu.run();
  guest.vcpu.kick();
  t.deepEqual(await second, { kind: 'intr' });
});

test('vcpu.run: whenever aborts come, no exit is lost and none comes twice', async t => {
  using guest = machine(COUNTER);
  const outcomes = { aborted: 0, delivered: 0 };
  let last = 0;
  const rounds = scaled(600);
  const both = (): boolean => outcomes.delivered > 0 && outcomes.aborted > 0;
  for (let round = 0; round < rounds || (round < 600 && !both()); round += 1) {
    const controller = new AbortController();
    const running = guest.vcpu.run({ signal: controller.signal }).catch(reasonOf(controller.signal));
    if (round % 3 === 1) await Promise.resolve();
    if (round % 3 === 2) while (guest.vm.memory.getUint8(MARK) !== next(last)); // it is at the exit, or past it
    controller.abort();
    const exit = await running;
    outcomes[exit === undefined ? 'aborted' : 'delivered'] += 1;
    if (exit === undefined) continue;
    last = next(last);
    t.deepEqual(exit, out(last));
  }
  t.true(both(), JSON.stringify(outcomes));
  t.deepEqual(await guest.vcpu.run(), out(next(last)));
});

function out(value: number): object {
  return told(0x80, value);
}

function next(value: number): number {
  return (value + 1) & 0xff;
}

function reasonOf(signal: AbortSignal): (error: unknown) => undefined {
  return error => {
    if (error !== signal.reason) throw error;
  };
}
