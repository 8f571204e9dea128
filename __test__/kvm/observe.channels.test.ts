import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { KiB, Vm } from '../../ts/index.ts';
import { ASK, machine } from '../helpers/guests.ts';
import { needs } from '../helpers/needs.ts';

const test = needs('x86_64', 'user-memory2', 'readonly-mem');

// One after the other, as all VMs of this thread speak on the same channels.
test('observe: the channels tell of VMs, vCPUs, slots and exits, in order', async t => {
  const seen: { readonly vm?: number }[] = [];
  const listen = (message: unknown): void => {
    if (typeof message === 'object' && message !== null) seen.push(message);
  };
  const names = ['typevisor:vm', 'typevisor:exit', 'typevisor:ioctl'] as const;
  for (const name of names) subscribe(name, listen);
  await everything();
  for (const name of names) unsubscribe(name, listen);
  const count = seen.length;
  machine(ASK)[Symbol.dispose]();
  t.is(seen.length, count, 'unsubscribed is unsubscribed');
  const [{ vm: first = 0 } = {}] = seen;
  const ioctl = 'KVM_SET_USER_MEMORY_REGION2';
  t.deepEqual(seen, [
    { event: 'create', vm: first },
    { vm: first, ioctl: 'KVM_CREATE_VM', arguments: { irqchip: false } },
    { vm: first, ioctl, arguments: { slot: 0, gpa: 0, size: 64 * KiB, readonly: false } },
    { vm: first, ioctl: 'KVM_CREATE_VCPU', arguments: { id: 0 } },
    { vm: first, vcpu: 0, exit: { kind: 'io', direction: 'in', port: 0x60, size: 1, count: 1 } },
    { vm: first, vcpu: 0, exit: { kind: 'hlt' } },
    { event: 'close', vm: first },
    { event: 'create', vm: first + 1 },
    { vm: first + 1, ioctl: 'KVM_CREATE_VM', arguments: { irqchip: true } },
    { vm: first + 1, ioctl, arguments: { slot: 3, gpa: 0, size: 64 * KiB, readonly: true } },
    { vm: first + 1, ioctl, arguments: { slot: 3, gpa: 1024 * KiB, size: 64 * KiB, readonly: true } },
    { vm: first + 1, ioctl, arguments: { slot: 3, gpa: 1024 * KiB, size: 0, readonly: true } },
    { vm: first + 1, ioctl, arguments: { slot: 0, gpa: 1024 * KiB - 256 * KiB, size: 256 * KiB, readonly: false } },
    { vm: first + 1, ioctl, arguments: { slot: 1, gpa: 2 ** 32 - 128 * KiB, size: 128 * KiB, readonly: true } },
    { event: 'close', vm: first + 1 },
  ]);
});

async function everything(): Promise<void> {
  {
    using guest = machine(ASK);
    await guest.vcpu.run();
    guest.vcpu.answer(1);
    guest.vcpu.runSync();
  }
  const vm = Vm.create({ irqchip: true });
  const slot = vm.memory.map({ gpa: 0, size: 64 * KiB, readonly: true, slot: 3 });
  slot.move(1024 * KiB);
  slot.unmap();
  slot.unmap();
  vm.memory.map({ gpa: 768 * KiB, size: 256 * KiB });
  vm.loadFirmware(new Uint8Array(128 * KiB).fill(0xf4));
  vm.close();
  vm.close();
}
