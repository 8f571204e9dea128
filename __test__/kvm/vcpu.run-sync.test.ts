import { attachConsole, CHATTER, CONSOLE, machine, printer, SPIN, STOP, STOPPED, told } from '../helpers/guests.ts';
import { onKvm as test } from '../helpers/needs.ts';
import { throwsCode, wrong } from '../helpers/throws.ts';

test('vcpu.runSync: gives the same exits as run', t => {
  using guest = machine(printer(0x80, 'H'));
  t.deepEqual(guest.vcpu.runSync(), told(0x80, 0x48));
  t.deepEqual(guest.vcpu.runSync({ timeoutMs: 10_000 }), STOPPED);
});

test('vcpu.runSync: an endless guest is ERR_TIMEOUT, and can be run on', t => {
  using guest = machine(SPIN);
  const error = throwsCode(t, 'ERR_TIMEOUT', () => guest.vcpu.runSync({ timeoutMs: 20 }));
  t.regex(error?.message ?? '', /20 ms/u);
  throwsCode(t, 'ERR_TIMEOUT', () => guest.vcpu.runSync({ timeoutMs: 1 }));
});

test('vcpu.runSync: a run that made it leaves no kick behind for the next', async t => {
  using guest = machine(STOP, STOP);
  guest.vcpu.runSync({ timeoutMs: 50 });
  await new Promise(resolve => setTimeout(resolve, 100));
  t.deepEqual(guest.vcpu.runSync(), STOPPED);
});

test('vcpu.runSync: all that was printed before the exit is there when it returns', t => {
  using guest = machine(printer(CONSOLE, 'before the exit'));
  let text = '';
  attachConsole(guest.vm, chunk => (text += Buffer.from(chunk).toString()));
  t.deepEqual(guest.vcpu.runSync(), STOPPED);
  t.is(text, 'before the exit');
});

test('vcpu.runSync: a guest that prints for ever is ERR_TIMEOUT, with the whole limit in the message', t => {
  using guest = machine(CHATTER);
  let bytes = 0;
  attachConsole(guest.vm, chunk => (bytes += chunk.length));
  const error = throwsCode(t, 'ERR_TIMEOUT', () => guest.vcpu.runSync({ timeoutMs: 1500 }));
  t.regex(error?.message ?? '', /1500 ms/u);
  t.true(bytes > 0);
});

test('vcpu.runSync: what is no time limit is refused', t => {
  using guest = machine(STOP);
  for (const timeoutMs of [0, -1, 1.5, Number.NaN, Infinity, 2 ** 31]) {
    throwsCode(t, 'ERR_OUT_OF_RANGE', () => guest.vcpu.runSync({ timeoutMs }));
  }
  throwsCode(t, 'ERR_INVALID_ARGUMENT', () => guest.vcpu.runSync({ timeoutMs: wrong('100') }));
});
