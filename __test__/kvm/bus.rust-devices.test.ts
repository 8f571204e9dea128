import { readSync } from 'node:fs';
import { eventfd, latch, serialConsole } from '../../ts/index.ts';
import { claim, machine, put, STOP, STOPPED, times } from '../helpers/guests.ts';
import { onKvm as test, x86 } from '../helpers/needs.ts';
import { throwsCode } from '../helpers/throws.ts';

x86('latch: holds the last value, and answers without JavaScript', async t => {
  // mov ax, 0x1234; out 0x10, ax; in al, 0x10; out 0x42, al; hlt
  using guest = machine([0xb8, 0x34, 0x12, 0xe7, 0x10, 0xe4, 0x10, 0xe6, 0x42, 0xf4]);
  const device = latch();
  guest.vm.bus.port(0x10, 2, device);
  t.like(await guest.vcpu.run(), { kind: 'io', port: 0x42, data: Uint8Array.of(0x34) });
  t.is(device.value, 0x1234n);
});

test('eventfd: counts the guest’s writes, and is closed with its claim', t => {
  using guest = machine(times(5, put(0x10)), STOP);
  const bell = eventfd();
  throwsCode(t, 'ERR_CLOSED', () => bell.fd);
  const claimed = claim(guest.vm, 0x10, bell);
  t.deepEqual(guest.vcpu.runSync(), STOPPED);
  const count = new BigUint64Array(1);
  readSync(bell.fd, count);
  t.is(count[0], 5n);
  claimed[Symbol.dispose]();
  throwsCode(t, 'ERR_CLOSED', () => bell.fd);
});

x86('serialConsole: sends what the guest writes, and the guest reads what is sent', async t => {
  // mov dx, 0x3f8; in al, dx; out dx, al; inc al; out dx, al; hlt
  using guest = machine([0xba, 0xf8, 0x03, 0xec, 0xee, 0xfe, 0xc0, 0xee, 0xf4]);
  let text = '';
  const serial = serialConsole(chunk => {
    text += Buffer.from(chunk).toString();
  });
  throwsCode(t, 'ERR_CLOSED', () => serial.send(Uint8Array.of(1)));
  guest.vm.bus.port(0x3f8, 8, serial);
  t.is(serial.send(new TextEncoder().encode('a')), 1);
  t.like(await guest.vcpu.run(), { kind: 'hlt' });
  t.is(text, 'ab');
});

x86('serialConsole: writes to a WritableStream of the web', async t => {
  using guest = machine([0xba, 0xf8, 0x03, 0xb0, 0x41, 0xee, 0xf4]); // mov dx, 0x3f8; mov al, 'A'; out dx, al; hlt
  const chunks: number[] = [];
  const written = new Promise<void>(resolve => {
    const stream = new WritableStream<Uint8Array>({
      write(chunk) {
        chunks.push(...chunk);
        resolve();
      },
    });
    guest.vm.bus.port(0x3f8, 8, serialConsole(stream));
  });
  await guest.vcpu.run();
  await written;
  t.deepEqual(chunks, [0x41]);
});

test('vm.close: ends every claim, and closes the eventfds among them', t => {
  const bells = [eventfd(), eventfd()];
  {
    using guest = machine(STOP);
    bells.forEach((bell, i) => claim(guest.vm, 0x10 + i, bell));
    t.true(bells.every(bell => bell.fd > 2));
  }
  for (const bell of bells) throwsCode(t, 'ERR_CLOSED', () => bell.fd);
});

test('latch, eventfd: have one claim at a time', t => {
  using guest = machine(STOP);
  for (const device of [latch(), eventfd()]) {
    const claimed = claim(guest.vm, 0x10, device);
    throwsCode(t, 'ERR_INVALID_ARGUMENT', () => claim(guest.vm, 0x20, device));
    claimed[Symbol.dispose]();
    claim(guest.vm, 0x20, device)[Symbol.dispose]();
  }
});
