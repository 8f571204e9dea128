import type { Exit } from '../../ts/index.ts';
import { hypervisorCall, machine, put, SPIN, told } from '../helpers/guests.ts';
import { needs } from '../helpers/needs.ts';

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
