import { KiB, Vm } from '../../ts/index.ts';
import { claim, type Code, CONSOLE, ENTRY, handlers, machine, put, STOP, STOPPED, told } from '../helpers/guests.ts';
import { needs, onKvm } from '../helpers/needs.ts';

const NONE = { bits: 0, smm: false, busLock: false, guestMode: false };

onKvm('vcpu.runFlags: is a frozen copy, of the exit that was delivered last, at any time', async t => {
  using guest = machine(put(0x60), put(CONSOLE), STOP);
  const { vm, vcpu } = guest;
  t.deepEqual(vcpu.runFlags, NONE);
  t.true(Object.isFrozen(vcpu.runFlags));
  const seen: unknown[] = [];
  claim(vm, 0x60, { read: () => 0, write: () => void seen.push(vcpu.runFlags) });
  const exit = await vcpu.serve(handlers({ access: () => void seen.push(vcpu.runFlags) }));
  t.deepEqual([exit.kind, seen], [STOPPED.kind, [NONE, NONE]]);
  vm.close();
  t.deepEqual(vcpu.runFlags, NONE);
});

needs('x86_64', 'x86-smm')('vcpu.runFlags: tells system management mode from the rest', async t => {
  const PORT = 0x10; // which the interrupt controllers and the timer leave alone
  using vm = Vm.create({ irqchip: true });
  vm.memory.map({ gpa: 0, size: 64 * KiB });
  // What a vCPU sees in that mode: out PORT, al; rsm
  vm.memory.map({ gpa: 0x3_0000, size: 64 * KiB, addressSpace: 1 });
  vm.memory.addressSpace(1).write(0x3_8000, Uint8Array.of(0xe6, PORT, 0x0f, 0xaa));
  const code: readonly Code[] = [
    [0xb0, 9], // mov al, 9
    [0xc7, 5, 0xf0, 0, 0xe0, 0xfe, 0xff, 1, 0, 0], // mov dword ptr [0xfee000f0], 0x1ff: the APIC is on
    [0xc7, 5, 0, 3, 0xe0, 0xfe, 0, 0x42, 4, 0], // mov dword ptr [0xfee00300], 0x44200: SMI, to itself
    [0xe6, PORT], // out PORT, al
  ];
  vm.memory.write(ENTRY, Uint8Array.from(code.flat()));
  const vcpu = vm.createVcpu();
  vcpu.boot({ mode: 'protected', entry: ENTRY, stack: 0x8000 });
  t.deepEqual(await vcpu.run(), told(PORT, 9));
  t.deepEqual(vcpu.runFlags, { ...NONE, bits: 1, smm: true });
  t.deepEqual(await vcpu.run(), told(PORT, 9));
  t.deepEqual(vcpu.runFlags, NONE);
});
