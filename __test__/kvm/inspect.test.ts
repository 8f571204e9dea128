import { inspect } from 'node:util';
import { type GuestMemory, KiB, Kvm, latch, Vm } from '../../ts/index.ts';
import { handlers, machine, SPIN, STOP } from '../helpers/guests.ts';
import { onKvm as test } from '../helpers/needs.ts';

test('inspect: each object prints its class and what tells it apart, and no more', t => {
  using kvm = Kvm.open();
  using vm = Vm.create({ kvm });
  const slot = vm.memory.map({ gpa: 1024 * KiB, size: 64 * KiB });
  const vcpu = vm.createVcpu({ id: 3 });
  t.is(inspect(kvm), "Kvm { path: '/dev/kvm' }");
  t.regex(inspect(vm), /^Vm \{ id: \d+, slots: 1 \}$/u);
  t.regex(inspect(vcpu), /^Vcpu \{ id: 3, vm: \d+, state: 'idle' \}$/u);
  t.is(inspect(slot), "MemorySlot { slot: 0, gpa: 0x100000, size: 65536, backing: 'anonymous' }");
  t.is(inspect(vm.memory, { breakLength: 200 }), `GuestMemory { slots: [ ${inspect(slot)} ] }`);
  t.regex(inspect(vm.capabilities), /^Capabilities \{ present: \d+, absent: \d+ \}$/u);
  t.is(inspect(vm.bus), 'Bus { ports: [], mmio: [] }');
});

test('inspect: closed objects print too, and say so', t => {
  const kvm = Kvm.open();
  const vm = Vm.create({ kvm });
  const vcpu = vm.createVcpu();
  const slot = vm.memory.map({ gpa: 0, size: 4 * KiB });
  const { memory, bus, capabilities }: { memory: GuestMemory; bus: object; capabilities: object } = vm;
  vm.close();
  kvm.close();
  t.regex(inspect(vm), /^Vm \{ id: \d+, closed: true \}$/u);
  t.regex(inspect(vcpu), /^Vcpu \{ id: 0, vm: \d+, state: 'closed' \}$/u);
  t.is(inspect(memory), 'GuestMemory { closed: true }');
  t.is(inspect(kvm), "Kvm { path: '/dev/kvm', closed: true }");
  t.is(inspect(bus), 'Bus { closed: true }');
  for (const object of [slot, capabilities]) t.notThrows(() => inspect(object));
});

test('inspect: a slot says that it is read-only, or gone', t => {
  using vm = Vm.create();
  const slot = vm.memory.map({ gpa: 0, size: 4 * KiB, readonly: vm.capabilities.has('readonly-mem') });
  const backing = "backing: 'anonymous'";
  const shown = inspect(slot, { breakLength: 200 });
  if (slot.readonly) t.is(shown, `MemorySlot { slot: 0, gpa: 0x0, size: 4096, ${backing}, readonly: true }`);
  slot.unmap();
  t.true(inspect(slot, { breakLength: 200 }).endsWith('unmapped: true }'));
});

test('inspect: the bus says what is claimed', t => {
  using vm = Vm.create();
  vm.bus.port(0x3f8, 8, { read: () => 0 });
  const claim = vm.bus.mmio(0xd000_0000, 4, latch());
  t.is(
    inspect(vm.bus, { breakLength: 120 }),
    'Bus { ports: [ { base: 0x3f8, size: 8 } ], mmio: [ { base: 0xd0000000, size: 4 } ] }',
  );
  claim[Symbol.dispose]();
  t.is(inspect(vm.bus), 'Bus { ports: [ { base: 0x3f8, size: 8 } ], mmio: [] }');
});

test('inspect: a vCPU says who drives it', async t => {
  using guest = machine(STOP, SPIN);
  const { vcpu } = guest;
  const state = (): string => /state: '(.*)'/u.exec(inspect(vcpu))?.[1] ?? '';
  const states: string[] = [];
  await vcpu.serve(
    handlers({
      stop: () => {
        states.push(state());
        return 'stop';
      },
    }),
  );
  states.push(state());
  const running = vcpu.run();
  states.push(state());
  vcpu.kick();
  await running;
  vcpu.kick();
  for await (const _ of vcpu.exits()) {
    states.push(state());
    break;
  }
  t.deepEqual(states, ['in serve()', 'idle', 'running', 'in exits()']);
});
