import { getEventListeners } from 'node:events';
import type { Exit } from '../../ts/index.ts';
import {
  ACCESS,
  ASK,
  asked,
  byteOf,
  forever,
  INCREMENT,
  machine,
  type Machine,
  MARK,
  mark,
  printer,
  put,
  SPIN,
  STOP,
  STOPPED,
  told,
} from '../helpers/guests.ts';
import { onKvm as test } from '../helpers/needs.ts';
import { rejectsCode, throwsCode, wrong } from '../helpers/throws.ts';

test('vcpu.exits: gives exit after exit, and ends by break', async t => {
  using guest = machine(printer(0x80, 'Hi'));
  const seen: Exit[] = [];
  for await (const exit of guest.vcpu.exits()) {
    seen.push(exit);
    if (seen.length === 3) break;
  }
  t.deepEqual(seen, [told(0x80, 0x48), told(0x80, 0x69), STOPPED]);
});

test('vcpu.exits: the guest stands still while the body runs', async t => {
  using guest = machine(forever(INCREMENT, mark(), put(0x80)));
  let round = 0;
  for await (const { kind } of guest.vcpu.exits()) {
    round += 1;
    t.is(kind, ACCESS);
    for (let turns = 0; turns < 5; turns += 1) {
      t.is(guest.vm.memory.getUint8(MARK), round);
      await new Promise(resolve => setImmediate(resolve));
    }
    if (round === 5) break;
  }
});

test('vcpu.exits: the body answers', async t => {
  using guest = machine(ASK);
  const seen: Exit[] = [];
  for await (const exit of guest.vcpu.exits()) {
    seen.push(exit);
    if (seen.length === 2) break;
    guest.vcpu.answer(0x2a);
  }
  t.deepEqual(seen, [asked(), STOPPED]);
  t.is(byteOf(guest.vcpu), 0x2a);
});

test('vcpu.exits: an exit without its answer is ERR_EXIT_UNANSWERED at the next iteration', async t => {
  using guest = machine(ASK);
  const exits = guest.vcpu.exits();
  t.is((await exits.next()).done, false);
  await rejectsCode(t, 'ERR_EXIT_UNANSWERED', exits.next());
  t.true((await exits.next()).done);
  guest.vcpu.answer(0x17); // it can still be given
  t.deepEqual(await guest.vcpu.run(), STOPPED);
  t.is(byteOf(guest.vcpu), 0x17);
});

const CLOSES: readonly (readonly [string, (guest: Machine) => unknown])[] = [
  ['vm.close', ({ vm }) => vm.close()],
  ['vcpu.close', ({ vcpu }) => vcpu.close()],
  ['the end of `await using vm`', ({ vm }) => vm[Symbol.asyncDispose]()],
  ['the end of `await using vcpu`', ({ vcpu }) => vcpu[Symbol.asyncDispose]()],
];

for (const [what, close] of CLOSES) {
  test(`vcpu.exits: ${what} ends it, in the guest and in the body`, async t => {
    using inGuest = machine(SPIN);
    const next = inGuest.vcpu.exits().next();
    await Promise.all([close(inGuest), next]);
    t.deepEqual(await next, { done: true, value: undefined });
    using inBody = machine(STOP, STOP);
    let rounds = 0;
    for await (const { kind } of inBody.vcpu.exits()) {
      t.is(kind, STOPPED.kind);
      rounds += 1;
      await close(inBody);
    }
    t.is(rounds, 1);
  });
}

test('vcpu.exits: aborting throws the reason, in the guest and from the body, and leaves no listener', async t => {
  using inGuest = machine(SPIN);
  const first = new AbortController();
  const next = inGuest.vcpu.exits({ signal: first.signal }).next();
  first.abort(new Error('enough'));
  t.is(await t.throwsAsync(next), first.signal.reason);
  using inBody = machine(STOP, STOP);
  const second = new AbortController();
  const seen: Exit[] = [];
  const loop = async (): Promise<void> => {
    for await (const exit of inBody.vcpu.exits({ signal: second.signal })) {
      seen.push(exit);
      second.abort(new Error('from the body'));
    }
  };
  t.is(await t.throwsAsync(loop), second.signal.reason);
  t.deepEqual(seen, [STOPPED]);
  t.deepEqual(await inBody.vcpu.run(), STOPPED);
  for (const { signal } of [first, second]) t.is(getEventListeners(signal, 'abort').length, 0);
});

test('vcpu.exits: an error of the body ends it', async t => {
  using guest = machine(STOP, STOP);
  const error = new Error('from the body');
  const loop = async (): Promise<void> => {
    for await (const { kind } of guest.vcpu.exits()) throw Object.assign(error, { kind });
  };
  t.is(await t.throwsAsync(loop), error);
  t.deepEqual(await guest.vcpu.run(), STOPPED);
});

test('vcpu.exits: until its end nobody else runs the vCPU, not even the body', async t => {
  using guest = machine(STOP, STOP);
  const idle = guest.vcpu.exits(); // nothing before its first iteration
  for await (const { kind } of guest.vcpu.exits()) {
    t.is(kind, STOPPED.kind);
    await rejectsCode(t, 'ERR_BUSY', guest.vcpu.run());
    await rejectsCode(t, 'ERR_BUSY', guest.vcpu.serve({}));
    await rejectsCode(t, 'ERR_BUSY', idle.next());
    throwsCode(t, 'ERR_BUSY', () => guest.vcpu.runSync());
    break;
  }
  t.deepEqual(await guest.vcpu.run(), STOPPED);
});

test('vcpu.exits: a pending run is ERR_BUSY for it', async t => {
  using guest = machine(SPIN);
  const running = guest.vcpu.run();
  await rejectsCode(t, 'ERR_BUSY', guest.vcpu.exits().next());
  guest.vcpu.kick();
  t.deepEqual(await running, { kind: 'intr' });
});

test('vcpu.exits: a kick is an exit like any other', async t => {
  using guest = machine(SPIN);
  guest.vcpu.kick();
  for await (const exit of guest.vcpu.exits()) {
    t.deepEqual(exit, { kind: 'intr' });
    break;
  }
});

test('vcpu.exits: what is no signal is ERR_INVALID_ARGUMENT, at once', t => {
  using guest = machine(STOP);
  throwsCode(t, 'ERR_INVALID_ARGUMENT', () => guest.vcpu.exits({ signal: wrong({}) }));
  throwsCode(t, 'ERR_INVALID_ARGUMENT', () => guest.vcpu.exits(wrong({ timeoutMs: 1 })));
});
