import { KiB, MiB, Vm } from '../../ts/index.ts';
import { onKvm as test } from '../helpers/needs.ts';
import { rejectsCode, throwsCode, wrong } from '../helpers/throws.ts';

const PATTERN = Buffer.from('RSD PTR ');

/** Two slots that touch at 64 KiB, and nothing from 128 KiB on. */
function twoSlots(): Vm {
  const vm = Vm.create();
  vm.memory.map({ gpa: 64 * KiB, size: 64 * KiB, backing: 'memfd' });
  vm.memory.map({ gpa: 0, size: 64 * KiB });
  return vm;
}

test('memory.search: gives every place, lowest first, the border of slots and both ends included', t => {
  using vm = twoSlots();
  const places = [0, 1234, 64 * KiB - 3, 128 * KiB - PATTERN.length];
  for (const gpa of places.toReversed()) vm.memory.write(gpa, PATTERN);
  t.deepEqual(vm.memory.search(0, 128 * KiB, PATTERN), places);
  t.deepEqual(vm.memory.search(1, 128 * KiB - 2, PATTERN), [1234, 64 * KiB - 3], 'only what lies in it as a whole');
  t.deepEqual(vm.memory.search(0, 128 * KiB, PATTERN, { limit: 2 }), places.slice(0, 2));
});

test('memory.search: places may overlap', t => {
  using vm = twoSlots();
  vm.memory.write(100, Buffer.from('aaaa'));
  t.deepEqual(vm.memory.search(0, 64 * KiB, Buffer.from('aa')), [100, 101, 102]);
});

test('memory.search: gives 1,000 places unless told otherwise', t => {
  using vm = twoSlots();
  const zero = Uint8Array.of(0);
  t.is(vm.memory.search(0, 128 * KiB, zero).length, 1000);
  t.is(vm.memory.search(0, 128 * KiB, zero, { limit: 2 ** 20 }).length, 128 * KiB);
});

test('memory.search: nothing is found in nothing, and what is longer than the range is not there', t => {
  using vm = twoSlots();
  t.deepEqual(vm.memory.search(0, 128 * KiB, PATTERN), []);
  t.deepEqual(vm.memory.search(0, 4, Uint8Array.of(0, 0, 0, 0, 0)), []);
});

test('memory.search: arguments that are wrong are refused', t => {
  using vm = twoSlots();
  const { memory } = vm;
  throwsCode(t, 'ERR_MEMORY_HOLE', () => memory.search(0, 1 * MiB, PATTERN));
  throwsCode(t, 'ERR_INVALID_ARGUMENT', () => memory.search(0, 4 * KiB, new Uint8Array()));
  throwsCode(t, 'ERR_INVALID_ARGUMENT', () => memory.search(0, 4 * KiB, wrong('RSD PTR ')));
  throwsCode(t, 'ERR_OUT_OF_RANGE', () => memory.search(-1, 4 * KiB, PATTERN));
  throwsCode(t, 'ERR_OUT_OF_RANGE', () => memory.search(0, 2 ** 52 + 1, PATTERN));
  throwsCode(t, 'ERR_INVALID_ARGUMENT', () => memory.search(0, 4 * KiB, PATTERN, wrong({ most: 5 })));
  for (const limit of [0, -1, 0.5, 2 ** 20 + 1]) {
    throwsCode(t, 'ERR_OUT_OF_RANGE', () => memory.search(0, 4 * KiB, PATTERN, { limit }));
  }
});

test('memory.promises.search: gives the same, for the bytes that the pattern has when it is called', async t => {
  using vm = twoSlots();
  const { promises } = vm.memory;
  const places = [0, 64 * KiB - 3, 128 * KiB - PATTERN.length];
  for (const gpa of places) vm.memory.write(gpa, PATTERN);
  const pattern = Buffer.from(PATTERN);
  const found = promises.search(0, 128 * KiB, pattern);
  pattern.fill(0);
  t.deepEqual(await found, places);
  t.deepEqual(await promises.search(0, 128 * KiB, PATTERN, { limit: 2 }), places.slice(0, 2));
  t.deepEqual(await promises.search(1, 128 * KiB - 2, PATTERN), [64 * KiB - 3]);
  t.deepEqual(await promises.search(8, 4 * KiB, PATTERN), []);
});

test('memory.promises.search: is done when its turn comes', async t => {
  using vm = twoSlots();
  const { promises } = vm.memory;
  const [, found] = await Promise.all([promises.write(0x100, PATTERN), promises.search(0, 64 * KiB, PATTERN)]);
  t.deepEqual(found, [0x100]);
});

test('memory.promises.search: arguments that are wrong are refused', async t => {
  using vm = twoSlots();
  const { promises } = vm.memory;
  await rejectsCode(t, 'ERR_MEMORY_HOLE', promises.search(0, 1 * MiB, PATTERN));
  await rejectsCode(t, 'ERR_INVALID_ARGUMENT', promises.search(0, 4 * KiB, new Uint8Array()));
  await rejectsCode(t, 'ERR_INVALID_ARGUMENT', promises.search(0, 4 * KiB, wrong('RSD PTR ')));
  await rejectsCode(t, 'ERR_OUT_OF_RANGE', promises.search(-1, 4 * KiB, PATTERN));
  await rejectsCode(t, 'ERR_OUT_OF_RANGE', promises.search(0, 2 ** 52 + 1, PATTERN));
  await rejectsCode(t, 'ERR_OUT_OF_RANGE', promises.search(0, 4 * KiB, PATTERN, { limit: 0 }));
  await rejectsCode(t, 'ERR_INVALID_ARGUMENT', promises.search(0, 4 * KiB, PATTERN, wrong({ most: 5 })));
  vm.close();
  await rejectsCode(t, 'ERR_CLOSED', promises.search(0, 4 * KiB, PATTERN));
});
