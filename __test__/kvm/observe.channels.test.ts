import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { KiB, Vm } from '../../ts/index.ts';
import { ASK, asked, machine, slotIoctl, STOPPED } from '../helpers/guests.ts';
import { needs } from '../helpers/needs.ts';

const NAMES = ['typevisor:vm', 'typevisor:exit', 'typevisor:ioctl'] as const;

/** What the channels tell while `act` runs. */
async function heard(act: () => unknown): Promise<{ readonly vm?: number }[]> {
  const seen: { readonly vm?: number }[] = [];
  const listen = (message: unknown): void => {
    if (typeof message === 'object' && message !== null) seen.push(message);
  };
  for (const name of NAMES) subscribe(name, listen);
  await act();
  for (const name of NAMES) unsubscribe(name, listen);
  const count = seen.length;
  machine(ASK)[Symbol.dispose]();
  if (seen.length !== count) throw new Error('unsubscribed is not unsubscribed');
  return seen;
}

// One after the other, as all VMs of this thread speak on the same channels.
needs('readonly-mem').serial('observe: the channels tell of VMs, vCPUs, slots and exits, in order', async t => {
  const ioctl = slotIoctl();
  const seen = await heard(async () => {
    {
      using guest = machine(ASK);
      await guest.vcpu.run();
      guest.vcpu.answer(1);
      guest.vcpu.runSync();
    }
    const other = Vm.create();
    const slot = other.memory.map({ gpa: 0, size: 64 * KiB, readonly: true, slot: 3 });
    slot.move(1024 * KiB);
    slot.unmap();
    slot.unmap();
    other.close();
    other.close();
  });
  const [{ vm = 0 } = {}] = seen;
  t.deepEqual(seen, [
    { event: 'create', vm },
    { vm, ioctl: 'KVM_CREATE_VM', arguments: { irqchip: false } },
    { vm, ioctl, arguments: { slot: 0, gpa: 0, size: 64 * KiB, readonly: false } },
    { vm, ioctl: 'KVM_CREATE_VCPU', arguments: { id: 0 } },
    { vm, vcpu: 0, exit: asked() },
    { vm, vcpu: 0, exit: STOPPED },
    { event: 'close', vm },
    { event: 'create', vm: vm + 1 },
    { vm: vm + 1, ioctl: 'KVM_CREATE_VM', arguments: { irqchip: false } },
    { vm: vm + 1, ioctl, arguments: { slot: 3, gpa: 0, size: 64 * KiB, readonly: true } },
    { vm: vm + 1, ioctl, arguments: { slot: 3, gpa: 1024 * KiB, size: 64 * KiB, readonly: true } },
    { vm: vm + 1, ioctl, arguments: { slot: 3, gpa: 1024 * KiB, size: 0, readonly: true } },
    { event: 'close', vm: vm + 1 },
  ]);
});

needs('readonly-mem').serial(
  'observe: the channels tell of every change of a slot that KVM was asked for, and no other',
  async t => {
    const ioctl = slotIoctl();
    const seen = await heard(async () => {
      using vm = Vm.create();
      const { memory } = vm;
      const slot = memory.map({ gpa: 0, size: 64 * KiB });
      slot.setReadonly(true);
      slot.setReadonly(true);
      slot.move(0);
      slot.setDirtyLog(true);
      memory.change(tx => {
        tx.setReadonly(slot, false);
        tx.move(slot, 1024 * KiB);
        tx.move(slot, 1024 * KiB);
        tx.map({ gpa: 0, size: 4 * KiB });
      });
      t.throws(() => memory.change(tx => [0, 0].forEach(gpa => tx.map({ gpa, size: 4 * KiB }))));
      const other = await memory.promises.map({ gpa: 64 * KiB, size: 4 * KiB, backing: { share: slot } });
      await memory.promises.move(other, 128 * KiB);
      await memory.promises.change(tx => tx.unmap(slot));
      await memory.promises.unmap(other);
    });
    const size = 64 * KiB;
    const first = { slot: 0, gpa: 0, size, readonly: false };
    const moved = { ...first, gpa: 1024 * KiB, dirtyLog: true };
    const [, second, third] = [0, 1, 2].map(slot => ({ slot, gpa: 0, size: 4 * KiB, readonly: false }));
    const expected = [
      first,
      { ...first, size: 0 },
      { ...first, readonly: true },
      { ...first, readonly: true, dirtyLog: true },
      { ...first, readonly: true, dirtyLog: true, size: 0 },
      { ...first, dirtyLog: true },
      moved,
      second,
      { ...third, gpa: 64 * KiB },
      { ...third, gpa: 128 * KiB },
      { ...moved, size: 0 },
      { ...third, gpa: 128 * KiB, size: 0 },
    ];
    const [{ vm = 0 } = {}] = seen;
    t.deepEqual(
      seen.slice(2, -1),
      expected.map(given => ({ vm, ioctl, arguments: given })),
    );
  },
);

needs('readonly-mem').serial(
  'observe: of what waits its turn the channels tell as it is done, not as it was asked for',
  async t => {
    const ioctl = slotIoctl();
    const seen = await heard(async () => {
      using vm = Vm.create();
      const { promises } = vm.memory;
      const slot = vm.memory.map({ gpa: 0, size: 4 * KiB });
      await Promise.all([
        promises.move(slot, 64 * KiB),
        promises.change(tx => tx.setReadonly(slot, true)),
        promises.move(slot, 0), // where it was when this was asked for
        promises.unmap(slot),
      ]);
    });
    const slot = { slot: 0, gpa: 0, size: 4 * KiB, readonly: false };
    const expected = [
      slot,
      { ...slot, gpa: 64 * KiB },
      { ...slot, gpa: 64 * KiB, size: 0 },
      { ...slot, gpa: 64 * KiB, readonly: true },
      { ...slot, readonly: true },
      { ...slot, readonly: true, size: 0 },
    ];
    const [{ vm = 0 } = {}] = seen;
    t.deepEqual(
      seen.slice(2, -1),
      expected.map(given => ({ vm, ioctl, arguments: given })),
    );
  },
);

needs().serial('observe: what was asked for before anybody watched is not told of, and disturbs nothing', async t => {
  using vm = Vm.create();
  const slot = vm.memory.map({ gpa: 0, size: 4 * KiB });
  const pending = vm.memory.promises.change(tx => {
    tx.move(slot, 64 * KiB);
    tx.map({ gpa: 0, size: 4 * KiB });
    tx.unmap(slot);
  });
  const seen = await heard(async () => void (await pending));
  t.deepEqual(seen, []);
  t.deepEqual(vm.memory.slots, await pending);
});

needs('x86_64', 'readonly-mem').serial('observe: the channels tell of a firmware’s slots', async t => {
  const ioctl = slotIoctl();
  const seen = await heard(() => {
    using vm = Vm.create({ irqchip: true });
    vm.memory.map({ gpa: 768 * KiB, size: 256 * KiB });
    vm.loadFirmware(new Uint8Array(128 * KiB).fill(0xf4));
  });
  const [{ vm = 0 } = {}] = seen;
  t.deepEqual(seen, [
    { event: 'create', vm },
    { vm, ioctl: 'KVM_CREATE_VM', arguments: { irqchip: true } },
    { vm, ioctl, arguments: { slot: 0, gpa: 1024 * KiB - 256 * KiB, size: 256 * KiB, readonly: false } },
    { vm, ioctl, arguments: { slot: 1, gpa: 2 ** 32 - 128 * KiB, size: 128 * KiB, readonly: true } },
    { event: 'close', vm },
  ]);
});
