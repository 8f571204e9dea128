import { EventEmitter, getEventListeners, once } from 'node:events';
import { ASK, byteOf, handlers, machine, type Machine, SPIN, STOP, STOPPED } from '../helpers/guests.ts';
import { onKvm as test } from '../helpers/needs.ts';
import { rejectsCode, throwsCode } from '../helpers/throws.ts';

/** A promise that nobody settles. */
const never = (): Promise<never> => new Promise(() => undefined);

test('vcpu.serve: aborting in the guest rejects with the reason and leaves no listener', async t => {
  using guest = machine(SPIN);
  const { signal, abort } = controller();
  const serving = guest.vcpu.serve(handlers({ access: () => 0 }), { signal });
  abort();
  t.is(await t.throwsAsync(serving), signal.reason);
  t.is(getEventListeners(signal, 'abort').length, 0);
});

test('vcpu.serve: aborted before, it calls nobody', async t => {
  using guest = machine(STOP);
  const signal = AbortSignal.abort(new Error('before'));
  const serving = guest.vcpu.serve(handlers({ stop: () => t.fail() }), { signal });
  t.is(await t.throwsAsync(serving), signal.reason);
  t.deepEqual(await guest.vcpu.run(), STOPPED);
});

test('vcpu.serve: an abort does not wait for a handler that never ends; its exit can be answered', async t => {
  using guest = machine(ASK);
  const { signal, abort } = controller();
  const serving = guest.vcpu.serve(
    handlers({
      access: () => {
        setImmediate(abort);
        return never();
      },
    }),
    { signal },
  );
  t.is(await t.throwsAsync(serving), signal.reason);
  t.is(getEventListeners(signal, 'abort').length, 0);
  guest.vcpu.answer(0x17);
  t.deepEqual(await guest.vcpu.run(), STOPPED);
});

test('vcpu.serve: aborted by its own handler, the answer counts and the next run does not begin', async t => {
  using guest = machine(ASK);
  const { signal, abort } = controller();
  const serving = guest.vcpu.serve(
    handlers({
      access: () => {
        abort();
        return 0x2a;
      },
    }),
    { signal },
  );
  t.is(await t.throwsAsync(serving), signal.reason);
  t.deepEqual(await guest.vcpu.run(), STOPPED);
  t.is(byteOf(guest.vcpu), 0x2a);
});

test('vcpu.serve: a stop wins over an abort of the same moment', async t => {
  using guest = machine(STOP);
  const { signal, abort } = controller();
  const stop = (): 'stop' => {
    abort();
    return 'stop';
  };
  t.deepEqual(await guest.vcpu.serve(handlers({ stop }), { signal }), STOPPED);
});

test('vcpu.serve: what a handler brings after the abort is dropped, an error too', async t => {
  using guest = machine(ASK);
  const { signal, abort } = controller();
  const late = new EventEmitter();
  const serving = guest.vcpu.serve(
    handlers({
      access: () => {
        setImmediate(abort);
        return once(late, 'never').then(() => 1);
      },
    }),
    { signal },
  );
  t.is(await t.throwsAsync(serving), signal.reason);
  late.emit('error', new Error('late'));
  await new Promise(resolve => setImmediate(resolve));
  guest.vcpu.answer(1);
  t.deepEqual(await guest.vcpu.run(), STOPPED);
});

const CLOSES: readonly (readonly [string, (guest: Machine) => void])[] = [
  ['the VM', ({ vm }) => vm.close()],
  ['the vCPU', ({ vcpu }) => vcpu.close()],
];

for (const [what, close] of CLOSES) {
  test(`vcpu.serve: closing ${what} rejects with ERR_CLOSED, in the guest and in a handler that never ends`, async t => {
    using inGuest = machine(SPIN);
    const first = inGuest.vcpu.serve({});
    close(inGuest);
    await rejectsCode(t, 'ERR_CLOSED', first);
    using inHandler = machine(STOP);
    const second = inHandler.vcpu.serve(
      handlers({
        stop: () => {
          setImmediate(() => close(inHandler));
          return never();
        },
      }),
    );
    await rejectsCode(t, 'ERR_CLOSED', second);
    using own = machine(STOP);
    const third = own.vcpu.serve(
      handlers({
        stop: () => {
          close(own);
          return never();
        },
      }),
    );
    await rejectsCode(t, 'ERR_CLOSED', third);
  });

  test(`vcpu.serve: closing ${what} from inside a handler takes effect when that returns`, async t => {
    using stopping = machine(STOP);
    const stop = (): 'stop' => {
      close(stopping);
      return 'stop';
    };
    t.deepEqual(await stopping.vcpu.serve(handlers({ stop })), STOPPED);
    using going = machine(STOP, STOP);
    await rejectsCode(t, 'ERR_CLOSED', going.vcpu.serve(handlers({ stop: () => close(going) })));
    throwsCode(t, 'ERR_CLOSED', () => going.vcpu.getRegisters());
    using answering = machine(ASK);
    const answer = (): number => {
      close(answering);
      return 1;
    };
    await rejectsCode(t, 'ERR_CLOSED', answering.vcpu.serve(handlers({ access: answer })));
  });
}

function controller(): { signal: AbortSignal; abort: () => void } {
  const made = new AbortController();
  return { signal: made.signal, abort: () => made.abort(new Error('enough')) };
}
