import type { Exit } from '../../ts/index.ts';
import { ASK, HLT, machine, printer, SPIN } from '../helpers/guests.ts';
import { x86 as test } from '../helpers/needs.ts';
import { rejectsCode, throwsCode, wrong } from '../helpers/throws.ts';

const READ: Exit = { kind: 'io', direction: 'in', port: 0x60, size: 1, count: 1 };

test('vcpu.serve: gives each exit to the handler of its kind, until one says stop', async t => {
  using guest = machine(printer(0x80, 'Hi'));
  const seen: Exit[] = [];
  const exit = await guest.vcpu.serve({
    io: io => void seen.push(io),
    hlt: () => 'stop',
  });
  t.deepEqual(exit, { kind: 'hlt' });
  t.deepEqual(
    seen,
    [0x48, 0x69].map(letter => ({
      kind: 'io',
      direction: 'out',
      port: 0x80,
      size: 1,
      count: 1,
      data: Uint8Array.of(letter),
    })),
  );
});

for (const [title, answer] of [
  ['a number', 0x2a],
  ['a bigint', 0x2an],
  ['bytes', Uint8Array.of(0x2a)],
  ['a promise', Promise.resolve(0x2a)],
] as const) {
  test(`vcpu.serve: ${title} that a handler returns is what the guest reads`, async t => {
    using guest = machine(ASK);
    t.deepEqual(await guest.vcpu.serve({ io: () => answer }), { kind: 'hlt' });
    t.is((guest.vcpu.getRegisters().rax ?? 0n) & 0xffn, 0x2an);
  });
}

test('vcpu.serve: an exit that no handler takes comes untouched, and can be answered', async t => {
  using guest = machine(ASK);
  t.deepEqual(await guest.vcpu.serve({ hlt: () => 'stop' }), READ);
  guest.vcpu.answer(0x17);
  t.deepEqual(await guest.vcpu.serve({}), { kind: 'hlt' });
  t.is((guest.vcpu.getRegisters().rax ?? 0n) & 0xffn, 0x17n);
});

test('vcpu.serve: a kick is an exit like any other: for its handler, or the end', async t => {
  using guest = machine(SPIN);
  guest.vcpu.kick();
  t.deepEqual(await guest.vcpu.serve({ io: () => 0 }), { kind: 'intr' });
  let kicks = 0;
  const serving = guest.vcpu.serve({ intr: () => (++kicks < 3 ? guest.vcpu.kick() : 'stop') });
  guest.vcpu.kick();
  t.deepEqual(await serving, { kind: 'intr' });
  t.is(kicks, 3);
});

test('vcpu.serve: a handler that throws rejects with that very error and leaves the exit unanswered', async t => {
  const error = new Error('from the handler');
  const throwing = (): never => {
    throw error;
  };
  for (const io of [throwing, () => Promise.reject<number>(error)]) {
    using guest = machine(ASK);
    t.is(await t.throwsAsync(guest.vcpu.serve({ io })), error);
    await rejectsCode(t, 'ERR_EXIT_UNANSWERED', guest.vcpu.run());
    guest.vcpu.answer(1);
    t.deepEqual(await guest.vcpu.run(), { kind: 'hlt' });
  }
});

test('vcpu.serve: nothing returned for a read is ERR_EXIT_UNANSWERED, and it can still be answered', async t => {
  for (const nothing of [undefined, Promise.resolve(undefined)]) {
    using guest = machine(ASK);
    const error = await rejectsCode(t, 'ERR_EXIT_UNANSWERED', guest.vcpu.serve({ io: () => nothing }));
    t.regex(error?.message ?? '', /^the 'io' handler returned nothing for a read: return the answer/u);
    guest.vcpu.answer(1);
    t.deepEqual(await guest.vcpu.run(), { kind: 'hlt' });
  }
});

test('vcpu.serve: an answer that does not fit is refused, and the exit unanswered', async t => {
  using guest = machine(ASK);
  await rejectsCode(t, 'ERR_INVALID_ARGUMENT', guest.vcpu.serve({ io: () => Uint8Array.of(1, 2) }));
  await t.throwsAsync(guest.vcpu.serve({}), { code: 'ERR_EXIT_UNANSWERED' });
  for (const value of ['stop', 'x', null, true, {}]) {
    using other = machine(ASK);
    await rejectsCode(t, 'ERR_INVALID_ARGUMENT', other.vcpu.serve({ io: () => wrong(value) }));
  }
});

test('vcpu.serve: an answer for an exit that wants none is ERR_NO_ANSWER_EXPECTED', async t => {
  for (const value of [1, 1n, Uint8Array.of(1)]) {
    using guest = machine(printer(0x80, 'H'));
    await rejectsCode(t, 'ERR_NO_ANSWER_EXPECTED', guest.vcpu.serve({ io: () => value }));
    t.deepEqual(await guest.vcpu.run(), { kind: 'hlt' });
  }
});

test("vcpu.serve: what is neither 'stop' nor nothing is ERR_INVALID_ARGUMENT", async t => {
  for (const value of ['STOP', null, false, {}]) {
    using guest = machine(HLT);
    await rejectsCode(t, 'ERR_INVALID_ARGUMENT', guest.vcpu.serve({ hlt: () => wrong(value) }));
  }
});

test('vcpu.serve: handlers have to be functions, by the names of kinds', async t => {
  using guest = machine(HLT);
  for (const handlers of [undefined, null, 1, [], { halt: () => 'stop' }, { hlt: 'stop' }, { hlt: null }]) {
    await rejectsCode(t, 'ERR_INVALID_ARGUMENT', guest.vcpu.serve(wrong(handlers)));
  }
  t.deepEqual(await guest.vcpu.serve({ hlt: undefined }), { kind: 'hlt' }, 'undefined is as good as absent');
});

test('vcpu.serve: handlers may be methods, and are read once', async t => {
  using guest = machine([...HLT, ...HLT, ...HLT]);
  class Counter {
    #halts = 0;
    get halts(): number {
      return this.#halts;
    }
    hlt(): 'stop' | undefined {
      this.#halts += 1;
      Object.defineProperty(this, 'hlt', { value: 'replaced' });
      return this.#halts === 2 ? 'stop' : undefined;
    }
  }
  const counter = new Counter();
  t.deepEqual(await guest.vcpu.serve(counter), { kind: 'hlt' });
  t.is(counter.halts, 2);
});

test('vcpu.serve: until its end nobody else runs the vCPU', async t => {
  using guest = machine([...HLT, ...HLT]);
  const exit = await guest.vcpu.serve({
    hlt: async () => {
      await rejectsCode(t, 'ERR_BUSY', guest.vcpu.run());
      await rejectsCode(t, 'ERR_BUSY', guest.vcpu.serve({}));
      await rejectsCode(t, 'ERR_BUSY', guest.vcpu.exits().next());
      throwsCode(t, 'ERR_BUSY', () => guest.vcpu.runSync());
      return 'stop' as const;
    },
  });
  t.deepEqual(exit, { kind: 'hlt' });
  t.deepEqual(await guest.vcpu.run(), { kind: 'hlt' });
});

test('vcpu.serve: while another run is pending it is ERR_BUSY', async t => {
  using guest = machine(SPIN);
  const running = guest.vcpu.run();
  await rejectsCode(t, 'ERR_BUSY', guest.vcpu.serve({}));
  guest.vcpu.kick();
  t.deepEqual(await running, { kind: 'intr' });
});

test('vcpu.serve: a handler may settle its exit and read the registers', async t => {
  // mov al, 7; out 0x80, al; hlt
  using guest = machine([0xb0, 0x07, 0xe6, 0x80, 0xf4]);
  let rip: bigint | undefined;
  await guest.vcpu.serve({
    io: async () => {
      t.is(await guest.vcpu.settle(), undefined);
      ({ rip } = guest.vcpu.getRegisters());
    },
  });
  t.is(rip, 0x1004n);
});
