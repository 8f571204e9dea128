import { Writable } from 'node:stream';
import { debugConsole } from '../../ts/index.ts';
import { attachConsole, CONSOLE, machine, printer, STOPPED, told } from '../helpers/guests.ts';
import { needs, x86 as test } from '../helpers/needs.ts';
import { throwsCode, wrong } from '../helpers/throws.ts';

/** Two of them are more than the console holds, 64 KiB. */
const BURST = 0x8800;
const ROUNDS = 5;

test('bus.port: a debug console takes what is printed; run never sees it, and has it before the exit', async t => {
  using guest = machine(printer(CONSOLE, 'hello, console'));
  let text = '';
  attachConsole(guest.vm, chunk => (text += Buffer.from(chunk).toString()));
  t.deepEqual(await guest.vcpu.run(), STOPPED);
  t.is(text, 'hello, console');
});

test('bus.port: a debug console writes to a stream', async t => {
  using guest = machine(printer(CONSOLE, 'to a stream'));
  let text = '';
  const sink = new Writable({
    write: (chunk: Buffer, _encoding, done) => {
      text += chunk.toString();
      done();
    },
  });
  guest.vm.bus.port(CONSOLE, 1, debugConsole(sink));
  await guest.vcpu.run();
  t.is(text, 'to a stream');
});

test('bus.port: a debug console reads as 0xe9', async t => {
  // mov dx, 0x402; in al, dx; hlt
  using guest = machine([0xba, 0x02, 0x04, 0xec, 0xf4]);
  guest.vm.bus.port(
    0x402,
    1,
    debugConsole(() => undefined),
  );
  t.deepEqual(await guest.vcpu.run(), { kind: 'hlt' });
  t.is((guest.vcpu.getRegisters().rax ?? 0n) & 0xffn, 0xe9n);
});

test('bus.port: a disposed claim gives the port back, twice is harmless', async t => {
  using guest = machine(printer(CONSOLE, 'x'));
  const claim = attachConsole(guest.vm, () => t.fail('it printed'));
  claim[Symbol.dispose]();
  claim[Symbol.dispose]();
  t.deepEqual(await guest.vcpu.run(), told(CONSOLE, 'x'.charCodeAt(0)));
  using again = attachConsole(guest.vm, () => undefined);
  t.truthy(again);
});

needs('x86_64', 'speed')('bus.port: more than the console holds arrives complete and in order', async t => {
  // cld; mov bp, ROUNDS; mov dx, 0x402; again: xor si, si; mov cx, BURST; rep outsb; dec bp; jnz again; hlt
  using guest = machine([
    0xfc,
    0xbd,
    ROUNDS,
    0,
    0xba,
    2,
    4,
    0x31,
    0xf6,
    0xb9,
    BURST & 0xff,
    BURST >> 8,
    0xf3,
    0x6e,
    0x4d,
    0x75,
    0xf6,
    0xf4,
  ]);
  const chunks: Uint8Array[] = [];
  guest.vm.bus.port(
    0x402,
    1,
    debugConsole(chunk => chunks.push(chunk)),
  );
  t.deepEqual(await guest.vcpu.run(), { kind: 'hlt' });
  const ram = guest.vm.memory.read(0, BURST);
  t.true(Buffer.concat(chunks).equals(Buffer.concat(Array.from({ length: ROUNDS }, () => ram))));
});

test('bus.port: what cannot be claimed is refused', t => {
  using guest = machine();
  const { bus } = guest.vm;
  const device = debugConsole(() => undefined);
  bus.port(0x402, 1, device);
  throwsCode(t, 'ERR_INVALID_ARGUMENT', () => bus.port(0x402, 1, device));
  throwsCode(t, 'ERR_INVALID_ARGUMENT', () => bus.port(0x403, 2, device));
  throwsCode(t, 'ERR_OUT_OF_RANGE', () => bus.port(0x1_0000, 1, device));
  throwsCode(t, 'ERR_OUT_OF_RANGE', () => bus.port(-1, 1, device));
  throwsCode(t, 'ERR_OUT_OF_RANGE', () => bus.port(0xffff, 2, device));
  throwsCode(t, 'ERR_OUT_OF_RANGE', () => bus.port(0x10, 0, device));
  throwsCode(t, 'ERR_INVALID_ARGUMENT', () => bus.port(wrong('0x10'), 1, device));
  for (const other of [undefined, null, {}, () => undefined]) {
    throwsCode(t, 'ERR_INVALID_ARGUMENT', () => bus.port(0x10, 1, wrong(other)));
  }
});
