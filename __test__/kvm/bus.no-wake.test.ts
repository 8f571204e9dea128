// In a file of its own: the counter is the process's.
import { latch } from '../../ts/index.ts';
import { deliveries } from '../../ts/mailbox.ts';
import { machine } from '../helpers/guests.ts';
import { x86 as test } from '../helpers/needs.ts';

test('latch: 10,000 exits that Rust handles wake JavaScript zero times', async t => {
  // mov cx, 10000; again: out 0x10, al; loop again; hlt
  using guest = machine([0xb9, 0x10, 0x27, 0xe6, 0x10, 0xe2, 0xfc, 0xf4]);
  guest.vm.bus.port(0x10, 1, latch());
  guest.vm.bus.unclaimed({ ports: 'ones' });
  const before = deliveries();
  t.like(await guest.vcpu.run(), { kind: 'hlt' });
  t.is(deliveries() - before, 1, 'the exit at the end, and nothing else');
});
