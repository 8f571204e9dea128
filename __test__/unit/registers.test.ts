import test, { type ExecutionContext } from 'ava';
import type { NativeRegisters, NativeSegment } from '../../ts/native.ts';
import { fromNative, toNative } from '../../ts/registers.ts';
import { throwsCode, wrong } from '../helpers/throws.ts';

const CS: NativeSegment = {
  name: 'cs',
  base: 0xffff_0000n,
  limit: 0xffff,
  selector: 0xf000,
  type: 11,
  present: true,
  dpl: 0,
  db: false,
  s: true,
  l: false,
  g: false,
  avl: false,
  unusable: false,
};

const NATIVE: NativeRegisters = {
  scalars: [
    { name: 'rip', value: 0xfff0n },
    { name: 'apic_base', value: 0xfee0_0900n },
  ],
  segments: [CS],
  tables: [{ name: 'idt', base: 0n, limit: 0xffff }],
  pending: true,
};

const current = (): NativeRegisters => NATIVE;
const never = (): NativeRegisters => {
  throw new Error('the present registers were asked for without need');
};

/** The lists of the other architecture cannot be set on this one. */
const x86 = (title: string, implementation: (t: ExecutionContext) => void): void =>
  process.arch === 'x64' ? test(title, implementation) : test.skip(`${title} (needs x86_64)`, implementation);

test('registers: are nested, named in camelCase and frozen to the last segment', t => {
  const registers = fromNative(NATIVE);
  const { name: _, ...cs } = CS;
  t.like(registers, { pending: true, rip: 0xfff0n, apicBase: 0xfee0_0900n, cs, idt: { base: 0n, limit: 0xffff } });
  t.true(Object.isFrozen(registers) && Object.isFrozen(registers.cs) && Object.isFrozen(registers.idt));
});

x86('setRegisters: scalars go by the addon’s names, without asking for the present ones', t => {
  t.deepEqual(toNative({ rax: 1n, apicBase: 2n, pending: true, arch: 'x86_64' }, never), {
    scalars: [
      { name: 'rax', value: 1n },
      { name: 'apic_base', value: 2n },
    ],
    segments: [],
    tables: [],
    pending: false,
  });
});

x86('setRegisters: the parts of a segment or table that are not named stay as they are', t => {
  const { segments, tables } = toNative({ cs: { base: 0n, selector: 0 }, idt: { limit: 7 } }, current);
  t.deepEqual(segments, [{ ...CS, base: 0n, selector: 0 }]);
  t.deepEqual(tables, [{ name: 'idt', base: 0n, limit: 7 }]);
});

x86('setRegisters: what is undefined is as good as absent', t => {
  const nothing = { scalars: [], segments: [], tables: [], pending: false };
  t.deepEqual(toNative({ rax: undefined, arch: undefined, cs: undefined }, never), nothing);
  t.deepEqual(toNative({ cs: { base: 1n, limit: undefined } }, current).segments, [{ ...CS, base: 1n }]);
});

x86('setRegisters: a wrong name or type is ERR_INVALID_ARGUMENT', t => {
  const table: readonly unknown[] = [
    { raxx: 1n },
    { x0: 1n },
    { rax: 1 },
    { rax: '1' },
    { cs: 1n },
    { cs: null },
    { cs: [] },
    [],
    { cs: { bose: 1n } },
    { cs: { base: 1 } },
    { cs: { limit: 1n } },
    { cs: { present: 1 } },
    { cs: { name: 'ds' } },
    { idt: { selector: 1 } },
    { arch: 'aarch64' },
  ];
  for (const some of table) throwsCode(t, 'ERR_INVALID_ARGUMENT', () => toNative(wrong(some), current));
});

x86('setRegisters: a value that does not fit is ERR_OUT_OF_RANGE', t => {
  const table: readonly unknown[] = [
    { rax: -1n },
    { rax: 2n ** 64n },
    { cs: { base: -1n } },
    { cs: { limit: 2 ** 32 } },
    { cs: { selector: 0x1_0000 } },
    { cs: { type: 16 } },
    { cs: { dpl: 4 } },
    { cs: { dpl: -1 } },
    { idt: { limit: 0x1_0000 } },
  ];
  for (const some of table) throwsCode(t, 'ERR_OUT_OF_RANGE', () => toNative(wrong(some), current));
});
