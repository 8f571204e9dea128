import type { PostedWrite } from '../../ts/index.ts';
import { machine } from '../helpers/guests.ts';
import { x86 as test } from '../helpers/needs.ts';

/** mov cx, count; again: mov al, cl; out 0x10, al; loop again; hlt */
function counting(count: number): readonly number[] {
  return [0xb9, count & 0xff, count >> 8, 0x88, 0xc8, 0xe6, 0x10, 0xe2, 0xfa, 0xf4];
}

test('bus.port: posted writes arrive in order and before the exit, under run and runSync', async t => {
  for (const way of ['run', 'runSync'] as const) {
    using guest = machine(counting(300));
    const writes: PostedWrite[] = [];
    guest.vm.bus.port(0x10, 1, { posted: some => void writes.push(...some) });
    t.like(await guest.vcpu[way](), { kind: 'hlt' });
    const expected = Array.from({ length: 300 }, (_, i) => ({ offset: 0, size: 1, value: (300 - i) & 0xff }));
    t.deepEqual(writes, expected);
  }
});

test('bus.port: more posted writes than the queue holds are all handed over', async t => {
  for (const way of ['run', 'runSync'] as const) {
    using guest = machine(counting(40_000));
    let [count, calls] = [0, 0];
    guest.vm.bus.port(0x10, 1, {
      posted(some) {
        count += some.length;
        calls += 1;
      },
    });
    t.like(await (way === 'run' ? guest.vcpu.run() : guest.vcpu.runSync({ timeoutMs: 60_000 })), { kind: 'hlt' });
    t.is(count, 40_000);
    t.true(calls >= 4, 'of 8,192 each');
  }
});

test('bus.port: posted writes are handed over before a later access is answered', async t => {
  // mov al, 1; out 0x10, al; in al, 0x11; out 0x10, al; in al, 0x10; hlt
  using guest = machine([0xb0, 1, 0xe6, 0x10, 0xe4, 0x11, 0xe6, 0x10, 0xe4, 0x10, 0xf4]);
  const order: string[] = [];
  guest.vm.bus.port(0x10, 1, {
    posted: some => some.forEach(({ value }) => order.push(`posted ${value}`)),
    read: () => (order.push('read 0x10'), 0),
  });
  guest.vm.bus.port(0x11, 1, { read: () => (order.push('read 0x11'), 2) });
  t.like(guest.vcpu.runSync(), { kind: 'hlt' });
  t.deepEqual(order, ['posted 1', 'read 0x11', 'posted 2', 'read 0x10']);
});

test('bus.port: a slow posted handler under a flooding guest leaves the event loop its turns', async t => {
  // again: out 0x10, al; jmp again
  using guest = machine([0xe6, 0x10, 0xeb, 0xfc]);
  guest.vm.bus.port(0x10, 1, {
    posted() {
      const end = performance.now() + 20;
      while (performance.now() < end); // busy
    },
  });
  const signal = AbortSignal.timeout(300);
  t.is(await t.throwsAsync(guest.vcpu.run({ signal }), { any: true }), signal.reason);
});
