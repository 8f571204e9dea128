import { GuestMemory, KiB, Vm } from '../../ts/index.ts';
import { needs } from '../helpers/needs.ts';
import { throwsCode, wrong } from '../helpers/throws.ts';

const test = needs();

/** Two slots that touch at 64 KiB, and nothing from 128 KiB on. */
function twoSlots(): Vm {
  const vm = Vm.create();
  vm.memory.map({ gpa: 64 * KiB, size: 64 * KiB });
  vm.memory.map({ gpa: 0, size: 64 * KiB });
  return vm;
}

test('memory.read, write: run over the border of slots that touch', t => {
  using vm = twoSlots();
  const text = new TextEncoder().encode('across the border');
  vm.memory.write(64 * KiB - 5, text);
  t.deepEqual(vm.memory.read(64 * KiB - 5, text.length), text);
  t.is(vm.memory.getUint8(64 * KiB - 1), 's'.charCodeAt(0));
  t.is(vm.memory.getUint8(64 * KiB + 1), ' '.charCodeAt(0));
  const whole = vm.memory.read(0, 128 * KiB);
  t.is(whole.length, 128 * KiB);
  t.deepEqual(whole.subarray(64 * KiB - 5, 64 * KiB - 5 + text.length), text);
});

test('memory.readInto: fills what it is given, and nothing beside it', t => {
  using vm = twoSlots();
  vm.memory.fill(0, 16, 0xaa);
  const around = new Uint8Array(8);
  const target = around.subarray(2, 6);
  t.is(vm.memory.readInto(0, target), target);
  t.deepEqual([...around], [0, 0, 0xaa, 0xaa, 0xaa, 0xaa, 0, 0]);
});

test('memory.fill: sets every byte of the range, across the border, and no other', t => {
  using vm = twoSlots();
  vm.memory.fill(64 * KiB - 3, 6, 0x5a);
  t.deepEqual([...vm.memory.read(64 * KiB - 4, 8)], [0, 0x5a, 0x5a, 0x5a, 0x5a, 0x5a, 0x5a, 0]);
  vm.memory.fill(64 * KiB - 3, 6);
  t.true(vm.memory.read(64 * KiB - 4, 8).every(byte => byte === 0));
});

test('memory: an access that ends in nothing is ERR_MEMORY_HOLE and copies nothing', t => {
  using vm = twoSlots();
  throwsCode(t, 'ERR_MEMORY_HOLE', () => vm.memory.read(128 * KiB - 1, 2));
  throwsCode(t, 'ERR_MEMORY_HOLE', () => vm.memory.write(128 * KiB - 1, Uint8Array.of(1, 2)));
  throwsCode(t, 'ERR_MEMORY_HOLE', () => vm.memory.fill(128 * KiB - 1, 2, 1));
  throwsCode(t, 'ERR_MEMORY_HOLE', () => vm.memory.getUint32(128 * KiB - 2));
  throwsCode(t, 'ERR_MEMORY_HOLE', () => vm.memory.setBigUint64(1024 * KiB, 1n));
  t.is(vm.memory.getUint8(128 * KiB - 1), 0);
});

test('memory: an address or size that no guest has is refused', t => {
  using vm = twoSlots();
  for (const gpa of [-1, 0.5, Number.NaN, 2 ** 53, 2 ** 52]) {
    throwsCode(t, 'ERR_OUT_OF_RANGE', () => vm.memory.read(gpa, 1));
    throwsCode(t, 'ERR_OUT_OF_RANGE', () => vm.memory.getUint8(gpa));
  }
  for (const size of [-1, 2 ** 53, 2 ** 52]) {
    throwsCode(t, 'ERR_OUT_OF_RANGE', () => vm.memory.read(0, size));
  }
  for (const value of [undefined, '0', 0n]) {
    throwsCode(t, 'ERR_INVALID_ARGUMENT', () => vm.memory.read(wrong(value), 1));
    throwsCode(t, 'ERR_INVALID_ARGUMENT', () => vm.memory.read(0, wrong(value)));
  }
  for (const data of [undefined, [1], 'x', new ArrayBuffer(1), new Uint16Array(1)]) {
    throwsCode(t, 'ERR_INVALID_ARGUMENT', () => vm.memory.write(0, wrong(data)));
    throwsCode(t, 'ERR_INVALID_ARGUMENT', () => vm.memory.readInto(0, wrong(data)));
  }
});

test('memory: no bytes are no access', t => {
  using vm = twoSlots();
  t.deepEqual(vm.memory.read(0, 0), new Uint8Array());
  t.notThrows(() => vm.memory.write(0, new Uint8Array()));
  t.notThrows(() => vm.memory.fill(0, 0, 1));
});

test('memory: Buffers and views of a SharedArrayBuffer are bytes too', t => {
  using vm = twoSlots();
  vm.memory.write(0, Buffer.from('abc'));
  const shared = new Uint8Array(new SharedArrayBuffer(3));
  t.is(Buffer.from(vm.memory.readInto(0, shared)).toString(), 'abc');
  vm.memory.write(3, shared);
  t.is(Buffer.from(vm.memory.read(0, 6)).toString(), 'abcabc');
});

/** Accessor, what it sets, what it then gets, and the bytes that are in memory: little-endian. */
const NUMBERS: readonly [
  string,
  (memory: GuestMemory, gpa: number) => void,
  (memory: GuestMemory, gpa: number) => unknown,
  unknown,
  readonly number[],
][] = [
  ['Uint8', (m, at) => m.setUint8(at, 0xfe), (m, at) => m.getUint8(at), 0xfe, [0xfe]],
  ['Uint16', (m, at) => m.setUint16(at, 0xfedc), (m, at) => m.getUint16(at), 0xfedc, [0xdc, 0xfe]],
  [
    'Uint32',
    (m, at) => m.setUint32(at, 0xfedc_ba98),
    (m, at) => m.getUint32(at),
    0xfedc_ba98,
    [0x98, 0xba, 0xdc, 0xfe],
  ],
  [
    'BigUint64',
    (m, at) => m.setBigUint64(at, 2n ** 64n - 2n),
    (m, at) => m.getBigUint64(at),
    2n ** 64n - 2n,
    [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
  ],
  ['Int8', (m, at) => m.setInt8(at, -2), (m, at) => m.getInt8(at), -2, [0xfe]],
  ['Int16', (m, at) => m.setInt16(at, -2), (m, at) => m.getInt16(at), -2, [0xfe, 0xff]],
  ['Int32', (m, at) => m.setInt32(at, -2), (m, at) => m.getInt32(at), -2, [0xfe, 0xff, 0xff, 0xff]],
  [
    'BigInt64',
    (m, at) => m.setBigInt64(at, -2n),
    (m, at) => m.getBigInt64(at),
    -2n,
    [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
  ],
  ['Float32', (m, at) => m.setFloat32(at, -1.5), (m, at) => m.getFloat32(at), -1.5, [0, 0, 0xc0, 0xbf]],
  ['Float64', (m, at) => m.setFloat64(at, -1.5), (m, at) => m.getFloat64(at), -1.5, [0, 0, 0, 0, 0, 0, 0xf8, 0xbf]],
];

for (const [name, set, get, value, raw] of NUMBERS) {
  test(`memory.set${name}, get${name}: are little-endian, also across a border`, t => {
    using vm = twoSlots();
    const gpa = 64 * KiB - 1;
    set(vm.memory, gpa);
    t.deepEqual([...vm.memory.read(gpa, raw.length)], [...raw]);
    t.is(get(vm.memory, gpa), value);
  });
}

test('memory: a number that does not fit its accessor is refused and changes nothing', t => {
  using vm = twoSlots();
  const { memory } = vm;
  for (const act of [
    () => memory.setUint8(0, 256),
    () => memory.setUint16(0, -1),
    () => memory.setUint32(0, 2 ** 32),
    () => memory.setBigUint64(0, -1n),
    () => memory.setInt8(0, 128),
    () => memory.setInt16(0, -32_769),
    () => memory.setInt32(0, 2 ** 31),
    () => memory.setBigInt64(0, 2n ** 63n),
    () => memory.setUint8(0, 0.5),
    () => memory.fill(0, 1, 256),
  ]) {
    throwsCode(t, 'ERR_OUT_OF_RANGE', act);
  }
  throwsCode(t, 'ERR_INVALID_ARGUMENT', () => memory.setUint8(0, wrong(1n)));
  throwsCode(t, 'ERR_INVALID_ARGUMENT', () => memory.setBigUint64(0, wrong(1)));
  throwsCode(t, 'ERR_INVALID_ARGUMENT', () => memory.setBigInt64(0, wrong(1)));
  throwsCode(t, 'ERR_INVALID_ARGUMENT', () => memory.setFloat64(0, wrong('1')));
  t.is(memory.getBigUint64(0), 0n);
});
