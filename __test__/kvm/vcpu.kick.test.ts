import { machine, SPIN, STOP, STOPPED } from '../helpers/guests.ts';
import { onKvm as test } from '../helpers/needs.ts';
import { scaled } from '../helpers/scale.ts';

test('vcpu.kick: stops an endless guest', async t => {
  using guest = machine(SPIN);
  const running = guest.vcpu.run();
  guest.vcpu.kick();
  t.deepEqual(await running, { kind: 'intr' });
});

test('vcpu.kick: while nothing runs, the next run gives it, and only that one', async t => {
  using guest = machine(STOP);
  guest.vcpu.kick();
  t.deepEqual(await guest.vcpu.run(), { kind: 'intr' });
  t.deepEqual(await guest.vcpu.run(), STOPPED);
});

test('vcpu.kick: is seen by runSync too', t => {
  using guest = machine(SPIN);
  guest.vcpu.kick();
  t.deepEqual(guest.vcpu.runSync(), { kind: 'intr' });
});

test('vcpu.kick: none is lost, whenever it comes', async t => {
  using guest = machine(SPIN);
  for (let round = 0; round < scaled(500); round += 1) {
    const running = guest.vcpu.run();
    for (let turns = round % 7; turns > 0; turns -= 1) await Promise.resolve();
    guest.vcpu.kick();
    const exit = await running;
    if (exit.kind !== 'intr') t.fail(exit.kind);
  }
  t.pass();
});
