import { Kvm, Vm } from '../../ts/index.ts';
import { needs } from '../helpers/needs.ts';
import { throwsCode, wrong } from '../helpers/throws.ts';

const test = needs();

test('capabilities: are all of the table, by number, absent ones with 0', t => {
  using vm = Vm.create();
  const all = [...vm.capabilities];
  t.true(all.length > 200);
  t.deepEqual(
    all.map(({ number }) => number),
    all.map(({ number }) => number).toSorted((a, b) => a - b),
  );
  t.is(new Set(all.map(({ name }) => name)).size, all.length);
  for (const capability of all) {
    t.is(vm.capabilities.value(capability.name), capability.value);
    t.is(vm.capabilities.has(capability.name), capability.value !== 0);
    t.true(Object.isFrozen(capability));
  }
  t.like(
    all.find(({ name }) => name === 'nr-memslots'),
    { number: 10, since: '5.10 or earlier' },
  );
});

test('capabilities: a name that there is not is ERR_INVALID_ARGUMENT', t => {
  using kvm = Kvm.open();
  for (const name of ['KVM_CAP_HLT', 'hltt', undefined, 1]) {
    throwsCode(t, 'ERR_INVALID_ARGUMENT', () => kvm.capabilities.has(wrong(name)));
    throwsCode(t, 'ERR_INVALID_ARGUMENT', () => kvm.capabilities.value(wrong(name)));
  }
});

needs('user-memory2')('Kvm.open: a hidden capability is absent, and what it serves falls back', t => {
  using kvm = Kvm.open({ hide: ['user-memory2'] });
  using vm = Vm.create({ kvm });
  t.false(kvm.capabilities.has('user-memory2'));
  t.false(vm.capabilities.has('user-memory2'));
  t.is(vm.memory.map({ gpa: 0, size: 4096 }).ioctl, 'KVM_SET_USER_MEMORY_REGION');
  using whole = Vm.create();
  t.is(whole.memory.map({ gpa: 0, size: 4096 }).ioctl, 'KVM_SET_USER_MEMORY_REGION2');
});

test('Kvm.open: what has no fallback says which capability is missing', t => {
  using kvm = Kvm.open({ hide: ['readonly-mem'] });
  using vm = Vm.create({ kvm });
  const error = throwsCode(t, 'ERR_CAPABILITY_MISSING', () => vm.memory.map({ gpa: 0, size: 4096, readonly: true }));
  t.is(error?.capability, 'readonly-mem');
  t.is(typeof error?.since, 'string');
});
