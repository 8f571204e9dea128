import type { PostedWrite } from '../../ts/index.ts';
import {
  claim,
  type Code,
  forever,
  get,
  INCREMENT,
  machine,
  put,
  set,
  STOP,
  STOPPED,
  times,
} from '../helpers/guests.ts';
import { onKvm as test } from '../helpers/needs.ts';
import { scaled } from '../helpers/scale.ts';

/** Writes 1, 2, … to port 0x10, and stops. */
function counting(count: number): Code {
  return [...set(0), ...times(count, INCREMENT, put(0x10)), ...STOP];
}

/** More than the queue, which holds 8,192, takes in one go, however slow this machine is. */
const MANY = Math.max(scaled(40_000), 10_000);

test('bus.port: posted writes arrive in order and before the exit, under run and runSync', async t => {
  for (const way of ['run', 'runSync'] as const) {
    using guest = machine(counting(300));
    const writes: PostedWrite[] = [];
    claim(guest.vm, 0x10, { posted: some => void writes.push(...some) });
    t.deepEqual(await guest.vcpu[way](), STOPPED);
    const expected = Array.from({ length: 300 }, (_, i) => ({ offset: 0, size: 1, value: (i + 1) & 0xff }));
    t.deepEqual(writes, expected);
  }
});

test('bus.port: more posted writes than the queue holds are all handed over', async t => {
  for (const way of ['run', 'runSync'] as const) {
    using guest = machine(counting(MANY));
    let [count, calls] = [0, 0];
    claim(guest.vm, 0x10, {
      posted(some) {
        count += some.length;
        calls += 1;
      },
    });
    t.like(await (way === 'run' ? guest.vcpu.run() : guest.vcpu.runSync({ timeoutMs: 60_000 })), STOPPED);
    t.is(count, MANY);
    t.true(calls >= Math.floor(MANY / 8192), 'of 8,192 each');
  }
});

test('bus.port: posted writes are handed over before a later access is answered', async t => {
  using guest = machine(set(1), put(0x10), get(0x11), put(0x10), get(0x10), STOP);
  const order: string[] = [];
  claim(guest.vm, 0x10, {
    posted: some => some.forEach(({ value }) => order.push(`posted ${value}`)),
    read: () => (order.push('read 0x10'), 0),
  });
  claim(guest.vm, 0x11, { read: () => (order.push('read 0x11'), 2) });
  t.deepEqual(guest.vcpu.runSync(), STOPPED);
  t.deepEqual(order, ['posted 1', 'read 0x11', 'posted 2', 'read 0x10']);
});

test('bus.port: a slow posted handler under a flooding guest leaves the event loop its turns', async t => {
  using guest = machine(forever(put(0x10)));
  claim(guest.vm, 0x10, {
    posted() {
      const end = performance.now() + 20;
      while (performance.now() < end); // busy
    },
  });
  const signal = AbortSignal.timeout(300);
  t.is(await t.throwsAsync(guest.vcpu.run({ signal }), { any: true }), signal.reason);
});
