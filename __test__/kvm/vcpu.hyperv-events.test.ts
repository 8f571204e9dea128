import { KiB, Vm } from '../../ts/index.ts';
import { type Code, CONSOLE, ENTRY, put, set, told } from '../helpers/guests.ts';
import { needs } from '../helpers/needs.ts';
import { hypervCpuid, wrmsr } from '../helpers/x86.ts';

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
