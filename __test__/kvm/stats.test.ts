import { Kvm, Vm } from '../../ts/index.ts';
import {
  ACCESS,
  claim,
  counting,
  COUNT,
  machine,
  machineIn,
  put,
  SPIN,
  start,
  STOP,
  untilItCounts,
} from '../helpers/guests.ts';
import { needs } from '../helpers/needs.ts';
import { throwsCode, wrong } from '../helpers/throws.ts';

const test = needs();
const own = needs('binary-stats-fd');

test('vcpu.stats: counts an exit once, whoever deals with it, under run and runSync', async t => {
  using guest = machine(put(0x42), put(0x43), put(0x42), put(0x43), STOP);
  const { vm, vcpu } = guest;
  t.deepEqual(vcpu.stats.exits, {});
  claim(vm, 0x42, { write: () => undefined, read: () => 0 });
  await vcpu.run();
  t.deepEqual(vcpu.stats.exits, { [ACCESS]: 2 });
  vcpu.runSync();
  t.deepEqual(vcpu.stats.exits, { [ACCESS]: 4 });
  vcpu.kick();
  vcpu.runSync();
  t.deepEqual(vcpu.stats.exits, { [ACCESS]: 4, intr: 1 });
  t.deepEqual(vm.stats.exits, vcpu.stats.exits);
  t.is(vcpu.stats.time, undefined);
});

test('vcpu.stats: is had from a handler, and while the vCPU runs', async t => {
  using guest = machine(put(0x42), SPIN);
  const { vm, vcpu } = guest;
  claim(vm, 0x42, {
    read: () => 0,
    write: () => {
      t.deepEqual([vcpu.stats.exits, vm.stats.exits], [{ [ACCESS]: 1 }, { [ACCESS]: 1 }]);
      vcpu.kick();
    },
  });
  await vcpu.run();
  const running = vcpu.run();
  t.deepEqual(vcpu.stats.exits, { [ACCESS]: 1, intr: 1 });
  vcpu.kick();
  await running;
});

test('vm.stats: are those of all its vCPUs', t => {
  using guest = machine(put(0x42), STOP);
  const { vm, vcpu } = guest;
  const second = vm.createVcpu();
  start(second);
  for (const each of [vcpu, second]) each.runSync();
  second.close();
  t.deepEqual(vm.stats.exits, { [ACCESS]: 2 });
});

test('vcpu.stats: has times where the VM was made with timing', t => {
  using vm = Vm.create({ timing: true });
  const { vcpu } = machineIn(vm, put(0x42), STOP);
  vcpu.runSync();
  vcpu.runSync();
  const { time } = vcpu.stats;
  t.true(time !== undefined && time.guestMs > 0 && time.handlerMs > 0);
  t.true((time?.handlerMsByKind[ACCESS] ?? 0) > 0);
  t.deepEqual(vm.stats.time, time);
  for (const timing of [null, 1, 'yes']) throwsCode(t, 'ERR_INVALID_ARGUMENT', () => Vm.create(wrong({ timing })));
});

test('stats: where KVM has none, kvm is undefined and exits are counted', t => {
  using kvm = Kvm.open({ hide: ['binary-stats-fd'] });
  using vm = Vm.create({ kvm });
  const { vcpu } = machineIn(vm, put(0x42), STOP);
  vcpu.runSync();
  for (const { stats } of [vm, vcpu]) t.deepEqual(stats, { exits: { [ACCESS]: 1 } });
});

test('stats: of what is closed it is ERR_CLOSED', t => {
  using vm = Vm.create();
  const vcpu = vm.createVcpu();
  vcpu.close();
  throwsCode(t, 'ERR_CLOSED', () => vcpu.stats.kvm);
  t.deepEqual(vm.stats.exits, {});
  vm.close();
  throwsCode(t, 'ERR_CLOSED', () => vm.stats);
});

own('vcpu.stats: KVM’s own count on while the guest runs, and nobody waits for it', async t => {
  using vm = Vm.create();
  vm.memory.map({ gpa: COUNT, size: 4096 });
  const { vcpu } = machineIn(vm, counting());
  const running = vcpu.run();
  untilItCounts(vm);
  const exits = vcpu.stats.kvm?.['exits'];
  t.like(exits, { kind: 'cumulative', unit: 'none', base: 10, exponent: 0 });
  t.is(typeof exits?.value, 'bigint');
  const wait = vcpu.stats.kvm?.['halt_poll_success_ns'];
  t.like(wait, { kind: 'cumulative', unit: 'seconds', base: 10, exponent: -9 });
  t.is(vm.stats.kvm?.['remote_tlb_flush']?.kind, 'cumulative');
  vcpu.kick();
  t.deepEqual(await running, { kind: 'intr' });
});
