import { KiB, Vm } from '../../ts/index.ts';
import { type Code, ENTRY, type Machine, put, set, told } from '../helpers/guests.ts';
import { needs } from '../helpers/needs.ts';
import { throwsCode } from '../helpers/throws.ts';
import { hypervCpuid, wrmsrLong } from '../helpers/x86.ts';

const synic = needs('x86_64', 'hyperv-synic2');

/** One that the interrupt controllers and the timer leave alone. */
const PORT = 0x10;

/** 64-bit code of a guest of Hyper-V, with a synthetic interrupt controller. */
function machineWith(...pieces: readonly Code[]): Machine {
  const vm = Vm.create({ irqchip: true });
  vm.memory.map({ gpa: 0, size: 64 * KiB });
  // HV_X64_MSR_GUEST_OS_ID, without which there is nothing
  const code = [wrmsrLong(0x4000_0000, 1), ...pieces, set(7), put(PORT)].flat();
  vm.memory.write(ENTRY, Uint8Array.from(code));
  const vcpu = vm.createVcpu({ cpuid: hypervCpuid(), hyperv: { synic: true } });
  vcpu.boot({ mode: 'long', entry: ENTRY, stack: 0x8000 });
  return { vm, vcpu, [Symbol.dispose]: () => vm.close() };
}

synic('vm.createVcpu: with hyperv.synic its set-up by the guest is an exit each time', async t => {
  // SCONTROL, and SIMP with the page at 0x4000
  using guest = machineWith(wrmsrLong(0x4000_0080, 1), wrmsrLong(0x4000_0083, 0x4001));
  const exit = { kind: 'hyperv', type: 'synic', control: 1n, evtPage: 0n } as const;
  t.deepEqual(await guest.vcpu.run(), { ...exit, msr: 0x4000_0080, msgPage: 0n });
  t.deepEqual(await guest.vcpu.run(), { ...exit, msr: 0x4000_0083, msgPage: 0x4001n });
  t.deepEqual(await guest.vcpu.run(), told(PORT, 7));
});

synic('vm.createVcpu: with hyperv.synic a message is an exit, and its answer is what the guest gets', async t => {
  const call: readonly Code[] = [
    wrmsrLong(0x4000_0001, 0x3001), // the page of the hypercall
    [0xb9, 0x5c, 0, 0, 0], // mov ecx, 0x5c (HvCallPostMessage)
    [0xba, 0, 0x60, 0, 0], // mov edx, 0x6000
    [0x41, 0xb8, 0, 0x70, 0, 0], // mov r8d, 0x7000
    [0xb8, 0, 0x30, 0, 0, 0xff, 0xd0], // mov eax, 0x3000; call rax
    put(PORT), // what the call gave
  ];
  using guest = machineWith(...call);
  const exit = await guest.vcpu.serve({ hyperv: hyperv => (hyperv.type === 'hcall' ? 0x12 : undefined) });
  t.deepEqual(exit, told(PORT, 0x12));
  t.deepEqual(await guest.vcpu.run(), told(PORT, 7));
});

synic('vm.createVcpu: hyperv.synic without irqchip is ERR_INVALID_ARGUMENT, and costs no id', t => {
  using vm = Vm.create();
  throwsCode(t, 'ERR_INVALID_ARGUMENT', () => vm.createVcpu({ hyperv: { synic: true } }));
  t.is(vm.createVcpu().id, 0);
});
