import { type CapabilityName, Kvm, type PostedDevice, type PostedWrite, Vm } from '../../ts/index.ts';
import {
  claim,
  type Code,
  forever,
  get,
  INCREMENT,
  machine,
  machineIn,
  mark,
  put,
  set,
  SPIN,
  STOP,
  STOPPED,
  times,
} from '../helpers/guests.ts';
import { needs, onKvm, x86 } from '../helpers/needs.ts';
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

test('bus.port: posted writes that KVM gathers cost no exit, and are there before the exit', async t => {
  for (const way of ['run', 'runSync'] as const) {
    using guest = machine(counting(150));
    const writes: PostedWrite[] = [];
    const posted = claim(guest.vm, 0x10, { posted: some => void writes.push(...some) });
    t.true(posted.kernel);
    t.deepEqual(posted.stats, { writes: 0, exits: 0 });
    t.deepEqual(await guest.vcpu[way](), STOPPED);
    t.deepEqual(writes, counted(150));
    t.deepEqual(posted.stats, { writes: 150, exits: 0 });
  }
});

test('bus.port: of more writes than the ring holds one in 100 at most costs an exit', async t => {
  for (const way of ['run', 'runSync'] as const) {
    using guest = machine(counting(1000));
    const writes: PostedWrite[] = [];
    const posted = claim(guest.vm, 0x10, { posted: some => void writes.push(...some) });
    t.deepEqual(await guest.vcpu[way](), STOPPED);
    t.deepEqual(writes, counted(1000));
    t.is(posted.stats.writes, 1000);
    t.true(posted.stats.exits <= 10, `${posted.stats.exits} exits`);
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

test('bus.port: a claim disposed of under a running guest loses no write, and still says what they cost', async t => {
  using guest = machine(set(1), forever(put(0x10)));
  const { writes, first, device } = listening();
  const posted = claim(guest.vm, 0x10, device);
  const running = guest.vcpu.run();
  await first;
  posted[Symbol.dispose]();
  posted[Symbol.dispose]();
  t.like(await running, process.arch === 'arm64' ? { kind: 'mmio' } : { kind: 'io', port: 0x10 });
  t.is(posted.stats.writes, writes.length);
  t.true(writes.every(({ value }) => value === 1));
});

test('vm.close: hands over what was posted until then', async t => {
  using guest = machine(set(1), forever(put(0x10)));
  const { writes, first, device } = listening();
  const posted = claim(guest.vm, 0x10, device);
  const running = t.throwsAsync(guest.vcpu.run(), { code: 'ERR_CLOSED' });
  await first;
  guest.vm.close();
  await running;
  t.is(posted.stats.writes, writes.length);
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
