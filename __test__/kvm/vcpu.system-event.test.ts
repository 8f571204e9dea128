import { type Exit, KiB, Vm } from '../../ts/index.ts';
import { type Code, CONSOLE, ENTRY, hypervisorCall, machine, put, set, SPIN, told } from '../helpers/guests.ts';
import { needs } from '../helpers/needs.ts';
import { hypervCpuid, wrmsr } from '../helpers/x86.ts';

/** PSCI (Arm DEN 0022), 32-bit function numbers. */
const EVENTS = [
  ['SYSTEM_OFF', 0x8400_0008, 'shutdown', 1],
  ['SYSTEM_RESET', 0x8400_0009, 'reset', 2],
] as const;

const aarch64 = needs('aarch64');

for (const [name, number, event, type] of EVENTS) {
  for (const way of ['run', 'runSync'] as const) {
    aarch64(`system-event: PSCI ${name} arrives as ${event} under ${way}`, async t => {
      using guest = machine(hypervisorCall(number), SPIN);
      const exit = await guest.vcpu[way]();
      t.like(exit, { kind: 'system-event', event, type });
      t.true(Object.isFrozen(exit));
      // Before Linux 5.18 the kernel wrote one word, called flags, where the data is since.
      if (guest.vm.capabilities.has('system-event-data')) t.like(exit, { data: [0n] });
      else t.like(exit, { data: [], flags: 0n });
      t.is('flags' in exit, !guest.vm.capabilities.has('system-event-data'));
    });
  }
}

// Both came with Linux 5.18.
aarch64(
  'system-event: PSCI SYSTEM_RESET2 says so in the data, and is no exit on kernels that know neither',
  async t => {
    using guest = machine(hypervisorCall(0x8400_0012), put(0x10), SPIN);
    const exit = await guest.vcpu.run();
    // KVM_SYSTEM_EVENT_RESET_FLAG_PSCI_RESET2: how the program tells the two resets apart.
    const reset: Exit = { kind: 'system-event', event: 'reset', type: 2, data: [1n] };
    // NOT_SUPPORTED, which is -1: the guest runs on, and tells its lowest byte.
    t.deepEqual(exit, guest.vm.capabilities.has('system-event-data') ? reset : told(0x10, 0xff));
  },
);

aarch64('system-event: is for its handler of serve, or ends it', async t => {
  using guest = machine(hypervisorCall(0x8400_0008), SPIN);
  const seen: string[] = [];
  const exit = await guest.vcpu.serve({
    'system-event': ({ event }) => {
      seen.push(event);
      return 'stop';
    },
  });
  t.deepEqual([exit.kind, seen], ['system-event', ['shutdown']]);
  using other = machine(hypervisorCall(0x8400_0008), SPIN);
  t.like(await other.vcpu.serve({}), { kind: 'system-event', event: 'shutdown' });
});

/** Registers of Hyper-V: by which a guest says what it is, has itself reset, and reports that it has crashed. */
const GUEST_OS_ID = 0x4000_0000;
const HYPERV_EVENTS: readonly (readonly [string, Code, 'reset' | 'crash', number])[] = [
  ['MSR of reset', wrmsr(0x4000_0003, 1), 'reset', 2],
  ['MSRs of a crash', [...wrmsr(0x4000_0100, 0xdead), ...wrmsr(0x4000_0105, 0, 0x8000_0000)], 'crash', 3],
];

for (const [name, code, event, type] of HYPERV_EVENTS) {
  for (const way of ['run', 'runSync'] as const) {
    needs('x86_64', 'hyperv')(`system-event: Hyper-V’s ${name}: a ${event} without data, under ${way}`, async t => {
      using vm = Vm.create();
      vm.memory.map({ gpa: 0, size: 64 * KiB });
      vm.memory.write(ENTRY, Uint8Array.from([...wrmsr(GUEST_OS_ID, 1), ...code, ...set(7), ...put(CONSOLE)]));
      const vcpu = vm.createVcpu({ cpuid: hypervCpuid() });
      vcpu.boot({ mode: 'real', entry: ENTRY });
      // The words that the page holds are those of earlier exits.
      t.deepEqual(await vcpu[way](), { kind: 'system-event', event, type, data: [] });
      t.deepEqual(await vcpu[way](), told(CONSOLE, 7));
    });
  }
}
