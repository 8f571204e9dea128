import test from 'ava';
import * as typevisor from '../../ts/index.ts';
import { throwsCode } from '../helpers/throws.ts';

test('index: exports these names and no others', t => {
  t.deepEqual(Object.keys(typevisor).toSorted(), [
    'Bus',
    'Capabilities',
    'GiB',
    'GuestMemory',
    'KiB',
    'Kvm',
    'MemorySlot',
    'MiB',
    'TypevisorError',
    'Vcpu',
    'Vm',
    'debugConsole',
    'doctor',
    'eventfd',
    'latch',
    'serialConsole',
  ]);
});

test('index: units are bytes', t => {
  t.deepEqual([typevisor.KiB, typevisor.MiB, typevisor.GiB], [2 ** 10, 2 ** 20, 2 ** 30]);
});

test('index: classes have no public constructor', t => {
  const { Bus, Capabilities, GuestMemory, Kvm, MemorySlot, Vcpu, Vm } = typevisor;
  for (const constructor of [Bus, Capabilities, GuestMemory, Kvm, MemorySlot, Vcpu, Vm]) {
    const error = throwsCode(t, 'ERR_INVALID_ARGUMENT', () => Reflect.construct(constructor, []));
    t.regex(error?.message ?? '', new RegExp(`^${constructor.name} has no public constructor: use `, 'u'));
  }
});
