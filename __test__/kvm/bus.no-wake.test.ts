// In a file of its own: the counter is the process's.
import { latch } from '../../ts/index.ts';
import { deliveries } from '../../ts/mailbox.ts';
import { claim, machine, put, STOP, STOPPED, times } from '../helpers/guests.ts';
import { onKvm as test } from '../helpers/needs.ts';
import { inWords, scaled } from '../helpers/scale.ts';

const EXITS = scaled(10_000);

test(`latch: ${inWords(EXITS)} exits that Rust handles wake JavaScript zero times`, async t => {
  using guest = machine(times(EXITS, put(0x10)), STOP);
  claim(guest.vm, 0x10, latch());
  guest.vm.bus.unclaimed({ ports: 'ones' });
  const before = deliveries();
  t.deepEqual(await guest.vcpu.run(), STOPPED);
  t.is(deliveries() - before, 1, 'the exit at the end, and nothing else');
});
