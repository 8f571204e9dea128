import { getEventListeners } from 'node:events';
import { ACCESS, ASK, forever, machine, put, SPIN, start, STOP, STOPPED } from '../helpers/guests.ts';
import { onKvm as test } from '../helpers/needs.ts';
import { scaled } from '../helpers/scale.ts';
import { rejectsCode, wrong } from '../helpers/throws.ts';

test('vcpu.run: aborting rejects with the reason and leaves no listener', async t => {
  using guest = machine(SPIN);
  const controller = new AbortController();
  const running = guest.vcpu.run({ signal: controller.signal });
  controller.abort(new Error('enough'));
  t.is(await t.throwsAsync(running), controller.signal.reason);
  t.is(getEventListeners(controller.signal, 'abort').length, 0);
});

test('vcpu.run: a signal aborted before keeps the guest where it is', async t => {
  using guest = machine(STOP);
  const before = guest.vcpu.getRegisters();
  const signal = AbortSignal.abort(new Error('before'));
  t.is(await t.throwsAsync(guest.vcpu.run({ signal })), signal.reason);
  t.deepEqual(guest.vcpu.getRegisters(), before);
});

test('vcpu.run: an abort stops its own run and never the next one', async t => {
  using guest = machine(STOP, STOP);
  const controller = new AbortController();
  t.deepEqual(await guest.vcpu.run({ signal: controller.signal }), STOPPED);
  controller.abort();
  t.deepEqual(await guest.vcpu.run(), STOPPED);
});

test('vcpu.run: a run that ended by itself leaves no listener either', async t => {
  using guest = machine(ASK);
  const { signal } = new AbortController();
  await guest.vcpu.run({ signal });
  await rejectsCode(t, 'ERR_EXIT_UNANSWERED', guest.vcpu.run({ signal }));
  t.is(getEventListeners(signal, 'abort').length, 0);
});

test('vcpu.run: aborted at any moment, it gives its exit or the reason, and the guest can be run on', async t => {
  using guest = machine(forever(put(0x80)));
  const seen = new Set<string>();
  for (let round = 0; round < scaled(300) || seen.size < 2; round += 1) {
    const controller = new AbortController();
    const running = guest.vcpu.run({ signal: controller.signal });
    for (let turns = round % 9; turns > 0; turns -= 1) await Promise.resolve();
    if (round % 3 === 0) setImmediate(() => controller.abort());
    else controller.abort();
    const exit = await running.catch((error: unknown) => {
      if (error !== controller.signal.reason) throw error;
    });
    seen.add(exit?.kind ?? 'aborted');
    if (exit === undefined) continue;
    t.is(exit.kind, ACCESS);
  }
  t.deepEqual([...seen].toSorted(), ['aborted', ACCESS]);
  t.is((await guest.vcpu.run()).kind, ACCESS);
});

test('vcpu.run: a kick is a kick with a signal too', async t => {
  using guest = machine(SPIN);
  const running = guest.vcpu.run({ signal: new AbortController().signal });
  guest.vcpu.kick();
  t.deepEqual(await running, { kind: 'intr' });
});

test('vcpu.run: what is no signal is ERR_INVALID_ARGUMENT', async t => {
  using guest = machine(STOP);
  for (const signal of [null, {}, 'abort']) {
    await rejectsCode(t, 'ERR_INVALID_ARGUMENT', guest.vcpu.run({ signal: wrong(signal) }));
  }
  await rejectsCode(t, 'ERR_INVALID_ARGUMENT', guest.vcpu.run(wrong({ signall: 1 })));
});

test('vcpu.run: one signal stops any number of vCPUs, without a warning and with no listener left', async t => {
  const warnings: string[] = [];
  const warned = ({ name }: Error): number => warnings.push(name);
  process.on('warning', warned);
  using guest = machine(SPIN);
  const controller = new AbortController();
  const vcpus = [guest.vcpu, ...Array.from({ length: 11 }, () => guest.vm.createVcpu())];
  for (const vcpu of vcpus) start(vcpu);
  const running = vcpus.map(vcpu => vcpu.run({ signal: controller.signal }));
  t.is(getEventListeners(controller.signal, 'abort').length, 1);
  controller.abort(new Error('all of them'));
  for (const outcome of await Promise.allSettled(running)) {
    t.deepEqual(outcome, { status: 'rejected', reason: controller.signal.reason });
  }
  t.is(getEventListeners(controller.signal, 'abort').length, 0);
  await new Promise(setImmediate); // warnings come by process.nextTick
  process.off('warning', warned);
  t.deepEqual(warnings, []);
});
