import { EventEmitter, once } from 'node:events';
import { setImmediate } from 'node:timers/promises';
import { KiB, type Vcpu, Vm } from '../../ts/index.ts';
import { fixture } from '../helpers/child.ts';
import {
  ASK,
  byteOf,
  claim,
  COUNT,
  counting,
  handlers,
  type Machine,
  machine,
  start,
  STOP,
  STOPPED,
  untilItCounts,
} from '../helpers/guests.ts';
import { onKvm as test } from '../helpers/needs.ts';
import { scaled } from '../helpers/scale.ts';
import { rejectsCode, throwsCode } from '../helpers/throws.ts';

/** A guest that counts, about to run. */
function counter(): Machine {
  const guest = machine(counting());
  guest.vm.memory.map({ gpa: COUNT, size: 4 * KiB });
  return guest;
}

/** Whether the count stays what it is, for as long as it takes to look a thousand times. */
function isStill({ memory }: Vm): boolean {
  const count = memory.getUint8(COUNT);
  return Array.from({ length: 1000 }, () => memory.getUint8(COUNT)).every(seen => seen === count);
}

async function kicked(vcpu: Vcpu, running: Promise<unknown>): Promise<unknown> {
  vcpu.kick();
  return await running;
}

test('vm.pause: no guest moves from when it resolves until vm.resume, and no run ends', async t => {
  using guest = counter();
  const { vm, vcpu } = guest;
  const second = vm.createVcpu();
  start(second);
  const running = [vcpu.run(), second.run()] as const;
  for (let round = 0; round < scaled(50); round += 1) {
    untilItCounts(vm);
    t.is(await vm.pause(), undefined);
    t.true(isStill(vm));
    vm.resume();
  }
  untilItCounts(vm);
  t.deepEqual(await kicked(vcpu, running[0]), { kind: 'intr' });
  untilItCounts(vm);
  t.deepEqual(await kicked(second, running[1]), { kind: 'intr' });
});

test('vm.pause: is one flag, however often it is asked for', async t => {
  using guest = counter();
  const { vm, vcpu } = guest;
  vm.resume(); // of nothing
  const running = vcpu.run();
  untilItCounts(vm);
  await Promise.all([vm.pause(), vm.pause()]);
  await vm.pause();
  t.true(isStill(vm));
  vm.resume();
  untilItCounts(vm);
  vm.resume();
  t.deepEqual(await kicked(vcpu, running), { kind: 'intr' });
});

test('vm.pause: a resume that comes first is not lost', async t => {
  using guest = counter();
  const { vm, vcpu } = guest;
  const running = vcpu.run();
  for (let round = 0; round < scaled(50); round += 1) {
    const pausing = vm.pause();
    vm.resume();
    await pausing;
    untilItCounts(vm);
  }
  t.deepEqual(await kicked(vcpu, running), { kind: 'intr' });
});

test('vm.pause: without a run it resolves too, and a run that begins then waits', async t => {
  using guest = counter();
  const { vm, vcpu } = guest;
  await vm.pause();
  const running = vcpu.run();
  t.true(isStill(vm));
  vm.resume();
  untilItCounts(vm);
  t.deepEqual(await kicked(vcpu, running), { kind: 'intr' });
});

test('vm.pause: an abort and a kick end a paused run, and the next one goes on', async t => {
  using guest = counter();
  const { vm, vcpu } = guest;
  const controller = new AbortController();
  const aborted = vcpu.run({ signal: controller.signal });
  untilItCounts(vm);
  await vm.pause();
  controller.abort(new Error('enough'));
  t.is(await t.throwsAsync(aborted), controller.signal.reason);
  t.deepEqual(await kicked(vcpu, vcpu.run()), { kind: 'intr' });
  t.true(isStill(vm));
  const running = vcpu.run();
  vm.resume();
  untilItCounts(vm);
  t.deepEqual(await kicked(vcpu, running), { kind: 'intr' });
});

test('vm.pause: runSync is ERR_WOULD_DEADLOCK then, whatever its limit, and can be run on', async t => {
  using guest = machine(ASK);
  const { vm, vcpu } = guest;
  const pausing = vm.pause();
  throwsCode(t, 'ERR_WOULD_DEADLOCK', () => vcpu.runSync({ timeoutMs: 2 ** 31 - 1 }));
  await pausing;
  const error = throwsCode(t, 'ERR_WOULD_DEADLOCK', () => vcpu.runSync({ timeoutMs: 2 ** 31 - 1 }));
  t.regex(error?.message ?? '', /paused; resume it first/u);
  vcpu.kick(); // what stops a run comes first
  t.deepEqual(vcpu.runSync(), { kind: 'intr' });
  vm.resume();
  vcpu.runSync({ timeoutMs: 60_000 });
  vcpu.answer(7);
  t.deepEqual(vcpu.runSync({ timeoutMs: 60_000 }), STOPPED);
  t.is(byteOf(vcpu), 7);
});

test('vm.pause: settle waits for its end', async t => {
  using guest = machine(ASK);
  const { vm, vcpu } = guest;
  await vcpu.run();
  vcpu.answer(7);
  await vm.pause();
  let settled = false;
  const settling = vcpu.settle().then(exit => {
    settled = true;
    return exit;
  });
  for (let turn = 0; turn < 20; turn += 1) await setImmediate();
  t.false(settled);
  vm.resume();
  t.is(await settling, undefined);
  t.is(byteOf(vcpu), 7);
});

test('vm.pause: memory changes meanwhile, and the change lets no guest go', async t => {
  using guest = counter();
  const { vm, vcpu } = guest;
  const slot = vm.memory.map({ gpa: 0x10_0000, size: 4 * KiB });
  const running = vcpu.run();
  untilItCounts(vm);
  await vm.pause();
  const count = vm.memory.getUint8(COUNT);
  vm.memory.change(tx => {
    tx.unmap(slot);
    tx.map({ gpa: 0x10_0000, size: 8 * KiB });
  });
  await vm.memory.promises.map({ gpa: 0x20_0000, size: 4 * KiB });
  t.is(vm.memory.getUint8(COUNT), count);
  t.true(isStill(vm));
  vm.resume();
  untilItCounts(vm);
  t.deepEqual(await kicked(vcpu, running), { kind: 'intr' });
});

test('vm.pause: a handler of serve may wait for it, and its answer for the end of it', async t => {
  using guest = machine(ASK);
  const { vm, vcpu } = guest;
  const told = new EventEmitter();
  const paused = once(told, 'paused');
  const access = async (): Promise<number> => {
    await vm.pause();
    told.emit('paused');
    return 7;
  };
  let ended = false;
  const serving = vcpu.serve(handlers({ access, stop: () => 'stop' })).finally(() => {
    ended = true;
  });
  await paused;
  for (let turn = 0; turn < 20; turn += 1) await setImmediate();
  t.false(ended);
  vm.resume();
  t.deepEqual(await serving, STOPPED);
  t.is(byteOf(vcpu), 7);
});

for (const way of ['run', 'runSync'] as const) {
  test(`vm.pause: a device may ask for it, and its vCPU goes no further: under ${way}`, async t => {
    using guest = machine(ASK);
    const { vm, vcpu } = guest;
    const pauses: Promise<void>[] = [];
    claim(vm, 0x60, {
      read: () => {
        pauses.push(vm.pause());
        return 7;
      },
      write: () => undefined,
    });
    if (way === 'runSync') throwsCode(t, 'ERR_WOULD_DEADLOCK', () => vcpu.runSync({ timeoutMs: 2 ** 31 - 1 }));
    const running = vcpu.run();
    for (let turn = 0; turn < 20 || pauses.length === 0; turn += 1) await setImmediate();
    await Promise.all(pauses);
    vm.resume();
    t.deepEqual(await running, STOPPED);
    t.deepEqual([byteOf(vcpu), pauses.length], [7, 1]);
  });
}

test('vm.close: ends a pause, and nothing can be paused or resumed any more', async t => {
  using guest = counter();
  const { vm, vcpu } = guest;
  const running = vcpu.run();
  untilItCounts(vm);
  await vm.pause();
  vm.close();
  await rejectsCode(t, 'ERR_CLOSED', running);
  await rejectsCode(t, 'ERR_CLOSED', vm.pause());
  throwsCode(t, 'ERR_CLOSED', () => vm.resume());
});

test('vm.close: a pause that is asked for just before has an end', async t => {
  for (let round = 0; round < scaled(20); round += 1) {
    using guest = counter();
    const running = guest.vcpu.run();
    // All were out before it was closed, or not.
    const pausing = guest.vm.pause().then(
      () => 'paused',
      (error: unknown) => (error instanceof Error && 'code' in error ? error.code : error),
    );
    const ended = rejectsCode(t, 'ERR_CLOSED', running);
    if (round % 2 === 0) guest.vm.close();
    else await guest.vm[Symbol.asyncDispose]();
    await ended;
    const end = await pausing;
    t.true(end === 'paused' || end === 'ERR_CLOSED', String(end));
  }
});

test('vm.pause: one VM of many, others go on', async t => {
  using one = counter();
  using other = counter();
  const running = [one.vcpu.run(), other.vcpu.run()] as const;
  untilItCounts(one.vm);
  await one.vm.pause();
  for (let round = 0; round < scaled(20); round += 1) untilItCounts(other.vm);
  t.true(isStill(one.vm));
  one.vm.resume();
  untilItCounts(one.vm);
  t.deepEqual(await kicked(one.vcpu, running[0]), { kind: 'intr' });
  t.deepEqual(await kicked(other.vcpu, running[1]), { kind: 'intr' });
});

test('vm.pause: several VMs on several worker threads, each with more vCPUs than there are cores', async t => {
  t.timeout(240_000);
  const { code, stdout, stderr } = await fixture('pausing');
  t.is(code, 0, stderr);
  const reports: { moved: number; still: number; ends: string[] }[] = JSON.parse(stdout);
  t.is(reports.length, 3);
  for (const { moved, still, ends } of reports) {
    t.deepEqual([moved, still], [scaled(20), scaled(20)]);
    t.deepEqual(
      ends,
      Array.from({ length: 4 }, () => 'intr'),
    );
  }
});

test('vm.pause: a guest at its end stays there', async t => {
  using guest = machine(STOP);
  const { vm, vcpu } = guest;
  t.deepEqual(await vcpu.run(), STOPPED);
  await vm.pause();
  t.is(typeof byteOf(vcpu), 'number', 'an idle vCPU shows its registers');
  vm.resume();
});
