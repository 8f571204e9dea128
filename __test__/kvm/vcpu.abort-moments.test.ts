import { getEventListeners } from 'node:events';
import { machine, SPIN } from '../helpers/guests.ts';
import { x86 as test } from '../helpers/needs.ts';

const MARK = 0x2000;
/** again: inc al; mov [MARK], al; out 0x80, al; jmp again */
const COUNTER: readonly number[] = [0xfe, 0xc0, 0xa2, 0x00, 0x20, 0xe6, 0x80, 0xeb, 0xf7];

test('vcpu.run: an abort after the delivery is nothing, to this run and the next', async t => {
  using guest = machine(COUNTER);
  const controller = new AbortController();
  t.deepEqual(await guest.vcpu.run({ signal: controller.signal }), out(1));
  controller.abort();
  t.deepEqual(await guest.vcpu.run(), out(2));
  t.is(getEventListeners(controller.signal, 'abort').length, 0);
});

test('vcpu.run: an abort in the guest ends that run alone', async t => {
  using guest = machine([...COUNTER.slice(0, 5), ...SPIN]);
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
  for (let round = 0; round < 600; round += 1) {
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
  t.true(outcomes.delivered > 0 && outcomes.aborted > 0, JSON.stringify(outcomes));
  t.deepEqual(await guest.vcpu.run(), out(next(last)));
});

function out(value: number): object {
  return { kind: 'io', direction: 'out', port: 0x80, size: 1, count: 1, data: Uint8Array.of(value) };
}

function next(value: number): number {
  return (value + 1) & 0xff;
}

function reasonOf(signal: AbortSignal): (error: unknown) => undefined {
  return error => {
    if (error !== signal.reason) throw error;
  };
}
