import { readSync } from 'node:fs';
import {
  type CapabilityName,
  type Eventfd,
  eventfd,
  Kvm,
  type PostedDevice,
  type PostedWrite,
  Vm,
} from '../../ts/index.ts';
import {
  claim,
  type Code,
  forever,
  get,
  INCREMENT,
  machine,
  machineIn,
  MARK,
  mark,
  put,
  set,
  SPIN,
  STOP,
  STOPPED,
  times,
  told,
} from '../helpers/guests.ts';
import { needs, onKvm, x86 } from '../helpers/needs.ts';
import { patiently, scaled } from '../helpers/scale.ts';
import { throwsCode } from '../helpers/throws.ts';

/** By which KVM gathers writes to the ports of these guests. */
const RING: CapabilityName = process.arch === 'arm64' ? 'coalesced-mmio' : 'coalesced-pio';
const test = needs(RING);

/** Writes 1, 2, … to port 0x10, and stops. */
function counting(count: number): Code {
  return [...set(0), ...times(count, INCREMENT, put(0x10)), ...STOP];
}

/** What `counting` writes. */
function counted(count: number): PostedWrite[] {
  return Array.from({ length: count }, (_, i) => ({ offset: 0, size: 1, value: (i + 1) & 0xff }));
}

/** A device that keeps what it gets, and says when it got the first. */
function listening(): { writes: PostedWrite[]; first: Promise<void>; device: PostedDevice } {
  const writes: PostedWrite[] = [];
  let resolve: () => void;
  const first = new Promise<void>(done => {
    resolve = done;
  });
  const posted = (some: readonly PostedWrite[]): void => {
    writes.push(...some);
    resolve();
  };
  return { writes, first, device: { posted } };
}

/** Waits for what the guest does, without giving up this thread. */
function until(isSo: () => boolean): void {
  const end = Date.now() + patiently(60_000);
  while (!isSo()) if (Date.now() > end) throw new Error('the guest does not get there');
}

/** Whether it was rung since the last time. */
function isRung({ fd }: Eventfd): boolean {
  try {
    return readSync(fd, new BigUint64Array(1)) === 8;
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'EAGAIN') return false;
    throw error;
  }
}

/** Before 6.12 KVM may find its ring full with 85 writes, of 169 that it has room for. */
const [FITS, PER_EXIT] = [80, 64];

test('bus.port: posted writes that KVM gathers cost no exit, and are there before the exit', async t => {
  for (const way of ['run', 'runSync'] as const) {
    using guest = machine(counting(FITS));
    const writes: PostedWrite[] = [];
    const posted = claim(guest.vm, 0x10, { posted: some => void writes.push(...some) });
    t.true(posted.kernel);
    t.deepEqual(posted.stats, { writes: 0, exits: 0 });
    t.deepEqual(await guest.vcpu[way](), STOPPED);
    t.deepEqual(writes, counted(FITS));
    t.deepEqual(posted.stats, { writes: FITS, exits: 0 });
  }
});

test('bus.port: of more writes than the ring holds one in 64 at most costs an exit', async t => {
  for (const way of ['run', 'runSync'] as const) {
    using guest = machine(counting(1000));
    const writes: PostedWrite[] = [];
    const posted = claim(guest.vm, 0x10, { posted: some => void writes.push(...some) });
    t.deepEqual(await guest.vcpu[way](), STOPPED);
    t.deepEqual(writes, counted(1000));
    t.is(posted.stats.writes, 1000);
    t.true(posted.stats.exits <= 1000 / PER_EXIT, `${posted.stats.exits} exits`);
  }
});

onKvm('bus.port: with the capability hidden every posted write is an exit, and all else the same', async t => {
  using kvm = Kvm.open({ hide: [RING] });
  using guest = machineIn(Vm.create({ kvm }), counting(300));
  const writes: PostedWrite[] = [];
  const posted = claim(guest.vm, 0x10, { posted: some => void writes.push(...some) });
  t.false(posted.kernel);
  t.deepEqual(await guest.vcpu.run(), STOPPED);
  t.deepEqual(writes, counted(300));
  t.deepEqual(posted.stats, { writes: 300, exits: 300 });
});

test('bus.port: what a guest posted before it spins is handed over while it spins', async t => {
  using guest = machine(set(7), put(0x10), SPIN);
  const { writes, first, device } = listening();
  claim(guest.vm, 0x10, device);
  const controller = new AbortController();
  const running = guest.vcpu.run({ signal: controller.signal });
  await first;
  t.deepEqual(writes, [{ offset: 0, size: 1, value: 7 }]);
  controller.abort(new Error('enough'));
  t.is(await t.throwsAsync(running), controller.signal.reason);
});

test('bus.port: writes to one device are handed over before a read of another is answered', async t => {
  for (const way of ['run', 'runSync'] as const) {
    using guest = machine(times(20, INCREMENT, put(0x10), get(0x11)), STOP);
    const order: string[] = [];
    claim(guest.vm, 0x10, { posted: some => some.forEach(({ value }) => order.push(`posted ${value}`)) });
    let asked = 0;
    claim(guest.vm, 0x11, { read: () => (order.push('read'), (asked += 1)) });
    t.deepEqual(await guest.vcpu[way](), STOPPED);
    // What is read is what is counted up and posted next.
    t.deepEqual(order.slice(1), ['read', ...Array.from({ length: 19 }, (_, i) => [`posted ${i + 2}`, 'read']).flat()]);
  }
});

needs(RING, 'ioeventfd')('posted.flush: hands over what was written before KVM rang an eventfd', async t => {
  using guest = machine(set(7), put(0x10), set(8), put(0x10), put(0x11), SPIN);
  const writes: PostedWrite[] = [];
  const posted = claim(guest.vm, 0x10, { posted: some => void writes.push(...some) });
  const bell = eventfd();
  claim(guest.vm, 0x11, bell);
  const controller = new AbortController();
  const running = guest.vcpu.run({ signal: controller.signal });
  until(() => isRung(bell)); // and nobody else's turn comes in between
  t.deepEqual([posted.kernel, bell.kernel], [true, true]);
  t.deepEqual(writes, []);
  posted.flush();
  t.deepEqual(writes, [
    { offset: 0, size: 1, value: 7 },
    { offset: 0, size: 1, value: 8 },
  ]);
  controller.abort(new Error('enough'));
  t.is(await t.throwsAsync(running), controller.signal.reason);
  posted[Symbol.dispose]();
  t.notThrows(() => posted.flush());
});

test('bus.port: a claim disposed of under a running guest loses no write, and still says what they cost', async t => {
  for (let round = 0; round < scaled(10); round += 1) {
    using guest = machine(set(0), forever(INCREMENT, put(0x10)));
    const { writes, first, device } = listening();
    const posted = claim(guest.vm, 0x10, device);
    const running = guest.vcpu.run();
    await first;
    posted[Symbol.dispose]();
    posted[Symbol.dispose]();
    t.deepEqual(await running, told(0x10, (writes.length + 1) & 0xff), 'the next one is an exit');
    t.deepEqual(writes, counted(writes.length));
    t.is(posted.stats.writes, writes.length);
    t.false(posted.kernel);
  }
});

test('vm.close: hands over what was posted until then', async t => {
  for (let round = 0; round < scaled(10); round += 1) {
    using guest = machine(set(0), times(200, INCREMENT, mark(), put(0x10)), SPIN);
    const writes: PostedWrite[] = [];
    const posted = claim(guest.vm, 0x10, { posted: some => void writes.push(...some) });
    const running = t.throwsAsync(guest.vcpu.run(), { code: 'ERR_CLOSED' });
    const { vm } = guest;
    until(() => vm.memory.getUint8(MARK) >= 50);
    const count = vm.memory.getUint8(MARK);
    vm.close();
    await running;
    t.deepEqual(writes, counted(writes.length));
    // The guest leaves each count in memory before it posts it.
    t.true(writes.length + 1 >= count, `${writes.length} writes, of ${count}`);
    t.deepEqual([posted.stats.writes, posted.kernel], [writes.length, false]);
  }
});

needs('coalesced-mmio')('bus.mmio: posted writes that KVM gathers say where in the claim they were', async t => {
  const gpa = 0xa_0000;
  using guest = machine(set(3), mark(gpa + 0x10), mark(gpa + 0xff), STOP);
  const writes: PostedWrite[] = [];
  const posted = guest.vm.bus.mmio(gpa, 0x100, { posted: some => void writes.push(...some) });
  t.deepEqual(await guest.vcpu.run(), STOPPED);
  t.deepEqual(writes, [
    { offset: 0x10, size: 1, value: 3 },
    { offset: 0xff, size: 1, value: 3 },
  ]);
  t.deepEqual([posted.kernel, posted.stats], [true, { writes: 2, exits: 0 }]);
});

needs('coalesced-mmio')('bus.mmio: past the kernel’s limit a claim of posted writes is ERR_LIMIT', t => {
  using vm = Vm.create();
  const post = (at: number): Disposable => vm.bus.mmio(0xd000_0000 + at, 1, { posted: () => undefined });
  const claims = Array.from({ length: 1000 }, (_, i) => post(i));
  throwsCode(t, 'ERR_LIMIT', () => post(1000));
  claims[3]?.[Symbol.dispose]();
  t.notThrows(() => post(1000));
});

x86('bus.port: the interrupt controllers’ ports are theirs, whoever posts writes around them', t => {
  using vm = Vm.create({ irqchip: true });
  const post = (base: number, count: number): boolean => vm.bus.port(base, count, { posted: () => undefined }).kernel;
  t.deepEqual([post(0x20, 1), post(0x60, 0x20), post(0x90, 0x10)], [false, false, true]);
});
