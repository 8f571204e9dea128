import type { Exit } from '../../ts/index.ts';
import {
  ACCESS,
  ASK,
  asked,
  byteOf,
  ENTRY,
  handlers,
  machine,
  placeOf,
  printer,
  put,
  set,
  SPIN,
  STOP,
  STOPPED,
  told,
} from '../helpers/guests.ts';
import { onKvm as test } from '../helpers/needs.ts';
import { rejectsCode, throwsCode, wrong } from '../helpers/throws.ts';

test('vcpu.serve: gives each exit to the handler of its kind, until one says stop', async t => {
  using guest = machine(printer(0x80, 'Hi'));
  const seen: Exit[] = [];
  const exit = await guest.vcpu.serve(handlers({ access: one => void seen.push(one), stop: () => 'stop' }));
  t.deepEqual(exit, STOPPED);
  t.deepEqual(seen, [told(0x80, 0x48), told(0x80, 0x69)]);
});

for (const [title, answer] of [
  ['a number', 0x2a],
  ['a bigint', 0x2an],
  ['bytes', Uint8Array.of(0x2a)],
  ['a promise', Promise.resolve(0x2a)],
] as const) {
  test(`vcpu.serve: ${title} that a handler returns is what the guest reads`, async t => {
    using guest = machine(ASK);
    t.deepEqual(await guest.vcpu.serve(handlers({ access: () => answer })), STOPPED);
    t.is(byteOf(guest.vcpu), 0x2a);
  });
}

test('vcpu.serve: an exit that no handler takes comes untouched, and can be answered', async t => {
  using guest = machine(ASK);
  t.deepEqual(await guest.vcpu.serve({ shutdown: () => 'stop' }), asked());
  guest.vcpu.answer(0x17);
  t.deepEqual(await guest.vcpu.serve({}), STOPPED);
  t.is(byteOf(guest.vcpu), 0x17);
});

test('vcpu.serve: a kick is an exit like any other: for its handler, or the end', async t => {
  using guest = machine(SPIN);
  guest.vcpu.kick();
  t.deepEqual(await guest.vcpu.serve(handlers({ access: () => 0 })), { kind: 'intr' });
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
  for (const access of [throwing, () => Promise.reject<number>(error)]) {
    using guest = machine(ASK);
    t.is(await t.throwsAsync(guest.vcpu.serve(handlers({ access }))), error);
    await rejectsCode(t, 'ERR_EXIT_UNANSWERED', guest.vcpu.run());
    guest.vcpu.answer(1);
    t.deepEqual(await guest.vcpu.run(), STOPPED);
  }
});

test('vcpu.serve: nothing returned for a read is ERR_EXIT_UNANSWERED, and it can still be answered', async t => {
  for (const nothing of [undefined, Promise.resolve(undefined)]) {
    using guest = machine(ASK);
    const error = await rejectsCode(t, 'ERR_EXIT_UNANSWERED', guest.vcpu.serve(handlers({ access: () => nothing })));
    t.true(error?.message.startsWith(`the '${ACCESS}' handler returned nothing for a read: return the answer`));
    guest.vcpu.answer(1);
    t.deepEqual(await guest.vcpu.run(), STOPPED);
  }
});

test('vcpu.serve: an answer that does not fit is refused, and the exit unanswered', async t => {
  using guest = machine(ASK);
  await rejectsCode(t, 'ERR_INVALID_ARGUMENT', guest.vcpu.serve(handlers({ access: () => Uint8Array.of(1, 2) })));
  await t.throwsAsync(guest.vcpu.serve({}), { code: 'ERR_EXIT_UNANSWERED' });
  for (const value of ['stop', 'x', null, true, {}]) {
    using other = machine(ASK);
    await rejectsCode(t, 'ERR_INVALID_ARGUMENT', other.vcpu.serve(handlers({ access: () => wrong(value) })));
  }
});

test('vcpu.serve: an answer for an exit that wants none is ERR_NO_ANSWER_EXPECTED', async t => {
  for (const value of [1, 1n, Uint8Array.of(1)]) {
    using guest = machine(printer(0x80, 'H'));
    await rejectsCode(t, 'ERR_NO_ANSWER_EXPECTED', guest.vcpu.serve(handlers({ access: () => value })));
    t.deepEqual(await guest.vcpu.run(), STOPPED);
  }
});

test("vcpu.serve: what is neither 'stop' nor nothing is ERR_INVALID_ARGUMENT", async t => {
  for (const value of ['STOP', null, false, {}]) {
    using guest = machine(STOP);
    await rejectsCode(t, 'ERR_INVALID_ARGUMENT', guest.vcpu.serve(handlers({ stop: () => wrong(value) })));
  }
});

test('vcpu.serve: handlers have to be functions, by the names of kinds', async t => {
  using guest = machine(STOP);
  for (const some of [undefined, null, 1, [], { halt: () => 'stop' }, { hlt: 'stop' }, { hlt: null }]) {
    await rejectsCode(t, 'ERR_INVALID_ARGUMENT', guest.vcpu.serve(wrong(some)));
  }
  t.deepEqual(await guest.vcpu.serve({ hlt: undefined }), STOPPED, 'undefined is as good as absent');
});

test('vcpu.serve: handlers may be methods, and are read once', async t => {
  using guest = machine(STOP, STOP, STOP);
  class Counter {
    #halts = 0;
    get halts(): number {
      return this.#halts;
    }
    hlt(): 'stop' | undefined {
      return this.#stop('hlt');
    }
    mmio(): 'stop' | undefined {
      return this.#stop('mmio');
    }
    #stop(name: string): 'stop' | undefined {
      this.#halts += 1;
      Object.defineProperty(this, name, { value: 'replaced' });
      return this.#halts === 2 ? 'stop' : undefined;
    }
  }
  const counter = new Counter();
  t.deepEqual(await guest.vcpu.serve(counter), STOPPED);
  t.is(counter.halts, 2);
});

test('vcpu.serve: until its end nobody else runs the vCPU', async t => {
  using guest = machine(STOP, STOP);
  const exit = await guest.vcpu.serve(
    handlers({
      stop: async () => {
        await rejectsCode(t, 'ERR_BUSY', guest.vcpu.run());
        await rejectsCode(t, 'ERR_BUSY', guest.vcpu.serve({}));
        await rejectsCode(t, 'ERR_BUSY', guest.vcpu.exits().next());
        throwsCode(t, 'ERR_BUSY', () => guest.vcpu.runSync());
        return 'stop' as const;
      },
    }),
  );
  t.deepEqual(exit, STOPPED);
  t.deepEqual(await guest.vcpu.run(), STOPPED);
});

test('vcpu.serve: while another run is pending it is ERR_BUSY', async t => {
  using guest = machine(SPIN);
  const running = guest.vcpu.run();
  await rejectsCode(t, 'ERR_BUSY', guest.vcpu.serve({}));
  guest.vcpu.kick();
  t.deepEqual(await running, { kind: 'intr' });
});

test('vcpu.serve: a handler may settle its exit and read the registers', async t => {
  const code = [...set(7), ...put(0x80)];
  using guest = machine(code, STOP);
  let place: bigint | undefined;
  const access = async (): Promise<void> => {
    t.is(await guest.vcpu.settle(), undefined);
    place = placeOf(guest.vcpu);
  };
  await guest.vcpu.serve(handlers({ access }));
  t.is(place, BigInt(ENTRY + code.length));
});
