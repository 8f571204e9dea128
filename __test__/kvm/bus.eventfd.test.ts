import { readSync } from 'node:fs';
import { type Eventfd, eventfd, Kvm, Vm } from '../../ts/index.ts';
import { claim, machine, machineIn, put, set, STOP, STOPPED, times, told } from '../helpers/guests.ts';
import { needs, onKvm } from '../helpers/needs.ts';
import { throwsCode, wrong } from '../helpers/throws.ts';

const test = needs('ioeventfd');

/** How often it was rung; it was, at least once. */
function rings(bell: Eventfd): bigint | undefined {
  const count = new BigUint64Array(1);
  readSync(bell.fd, count);
  return count[0];
}

test('eventfd: KVM rings it while it stands on the bus', async t => {
  for (const way of ['run', 'runSync'] as const) {
    using guest = machine(times(5, put(0x10)), STOP);
    const bell = eventfd();
    t.false(bell.kernel);
    const claimed = claim(guest.vm, 0x10, bell);
    t.true(bell.kernel);
    t.deepEqual(await guest.vcpu[way](), STOPPED);
    t.is(rings(bell), 5n);
    claimed[Symbol.dispose]();
    t.false(bell.kernel);
  }
});

test('eventfd: with a value to match, no other rings it', t => {
  for (const match of [2, 2n]) {
    using guest = machine(set(2), put(0x10), set(3), put(0x10), set(2), put(0x10), STOP);
    const bell = eventfd({ match });
    claim(guest.vm, 0x10, bell);
    t.true(bell.kernel);
    t.deepEqual(guest.vcpu.runSync(), STOPPED);
    t.is(rings(bell), 2n);
  }
});

test('eventfd: a value of more than 4 bytes is rung for in Rust', t => {
  using vm = Vm.create();
  const bells = [0xffff_ffff, 0x1_0000_0000, 2n ** 64n - 1n].map(match => eventfd({ match }));
  bells.forEach((bell, i) => vm.bus.mmio(0xd000_0000 + 8 * i, 8, bell));
  t.deepEqual(
    bells.map(bell => bell.kernel),
    [true, false, false],
  );
});

onKvm('eventfd: with the capability hidden Rust rings it', t => {
  using kvm = Kvm.open({ hide: ['ioeventfd'] });
  for (const [match, expected] of [
    [undefined, 3n],
    [2, 1n],
  ] as const) {
    using guest = machineIn(Vm.create({ kvm }), set(2), put(0x10), set(3), put(0x10), put(0x10), STOP);
    const bell = eventfd({ match });
    claim(guest.vm, 0x10, bell);
    t.false(bell.kernel);
    t.deepEqual(guest.vcpu.runSync(), STOPPED);
    t.is(rings(bell), expected);
  }
});

test('eventfd: disposed of, its writes are exits', async t => {
  using guest = machine(set(4), put(0x10), STOP);
  claim(guest.vm, 0x10, eventfd())[Symbol.dispose]();
  t.deepEqual(await guest.vcpu.run(), told(0x10, 4));
});

onKvm('eventfd: a value that no write can have is refused', t => {
  for (const match of [-1, 1.5, Number.NaN, 2 ** 53, -1n, 2n ** 64n]) {
    throwsCode(t, 'ERR_OUT_OF_RANGE', () => eventfd({ match }));
  }
  for (const options of [{ match: '1' }, { mach: 1 }, null, 1]) {
    throwsCode(t, 'ERR_INVALID_ARGUMENT', () => eventfd(wrong(options)));
  }
});
