import { Kvm, Vm } from '../../ts/index.ts';
import { REGISTER } from '../helpers/guests.ts';
import { needs } from '../helpers/needs.ts';
import { throwsCode, wrong } from '../helpers/throws.ts';

const test = needs();

test('Kvm.open: a path that is no KVM is ERR_KVM_UNAVAILABLE and says what to do', t => {
  const absent = throwsCode(t, 'ERR_KVM_UNAVAILABLE', () => Kvm.open({ path: '/dev/no-such-kvm' }));
  t.like(absent, { errno: -2, errnoName: 'ENOENT', syscall: 'open' });
  t.regex(absent?.message ?? '', /\/dev\/no-such-kvm.*\/dev\/kvm/u);
  t.is(throwsCode(t, 'ERR_KVM_UNAVAILABLE', () => Kvm.open({ path: '/dev/null' }))?.errnoName, 'ENOTTY');
  throwsCode(t, 'ERR_KVM_UNAVAILABLE', () => Kvm.open({ path: '/tmp' }));
});

test('Kvm.open: what makes no sense is ERR_INVALID_ARGUMENT', t => {
  for (const options of [null, 'x', { path: 1 }, { hide: 'x' }, { hide: [1] }, { hide: ['no-such'] }, { pth: '' }]) {
    throwsCode(t, 'ERR_INVALID_ARGUMENT', () => Kvm.open(wrong(options)));
  }
});

test('Kvm.open: of what it cannot hide the error names the entry', t => {
  const { message } = throwsCode(t, 'ERR_INVALID_ARGUMENT', () => Kvm.open(wrong({ hide: ['readonly-mem', 7] }))) ?? {};
  t.is(message, 'hide[1] must be the name of a capability; got the number 7');
  const unknown = throwsCode(t, 'ERR_INVALID_ARGUMENT', () => Kvm.open(wrong({ hide: ['readonly-mem', 'no-such'] })));
  t.regex(unknown?.message ?? '', /no-such/u);
});

test('kvm.close: twice is harmless; VMs made from it live on, new ones are ERR_CLOSED', t => {
  const kvm = Kvm.open();
  using vm = Vm.create({ kvm });
  kvm.close();
  kvm.close();
  kvm[Symbol.dispose]();
  throwsCode(t, 'ERR_CLOSED', () => Vm.create({ kvm }));
  vm.memory.map({ gpa: 0, size: 4096 });
  t.is(vm.createVcpu().id, 0);
  t.true(kvm.capabilities.has('nr-memslots'));
});

test('Vm.create: what makes no sense is ERR_INVALID_ARGUMENT', t => {
  for (const options of [null, 1, { kvm: {} }, { irqchip: 'yes' }, { irqChip: true }]) {
    throwsCode(t, 'ERR_INVALID_ARGUMENT', () => Vm.create(wrong(options)));
  }
  using vm = Vm.create();
  for (const options of [null, { id: '0' }, { ID: 0 }]) {
    throwsCode(t, 'ERR_INVALID_ARGUMENT', () => vm.createVcpu(wrong(options)));
  }
  for (const id of [-1, 0.5, 2 ** 31]) throwsCode(t, 'ERR_OUT_OF_RANGE', () => vm.createVcpu({ id }));
  throwsCode(t, 'ERR_INVALID_ARGUMENT', () => vm.createVcpu({ id: 2 ** 31 - 1 }));
});

test('options: undefined is as good as absent, also for those who check their types exactly', t => {
  using kvm = Kvm.open({ path: undefined, hide: undefined });
  using vm = Vm.create({ kvm, irqchip: undefined });
  const slot = vm.memory.map({ gpa: 0, size: 4096, readonly: undefined, slot: undefined });
  t.like(slot, { slot: 0, readonly: false });
  const vcpu = vm.createVcpu({ id: undefined });
  t.notThrows(() => vcpu.setRegisters({ arch: undefined, [REGISTER]: undefined }));
  vm.bus.unclaimed({ ports: undefined });
  using other = Vm.create({ kvm: undefined });
  t.deepEqual(other.memory.slots, []);
});
