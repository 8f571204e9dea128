import test from 'ava';
import { cpuidFrom, cpuidRequest } from '../../ts/cpuid.ts';
import { throwsCode, wrong } from '../helpers/throws.ts';

const LEAF = { function: 1, eax: 2, ebx: 3, ecx: 4, edx: 2 ** 32 - 1 };

test('cpuid: entries come as frozen copies, with an index where it counts', t => {
  const native = [
    { ...LEAF, index: null },
    { ...LEAF, index: 0 },
  ];
  const entries = cpuidFrom(native);
  t.deepEqual(entries, [LEAF, { ...LEAF, index: 0 }]);
  t.true(Object.isFrozen(entries) && entries.every(entry => Object.isFrozen(entry)));
});

test('cpuid: what came goes back as it was, and an index that is undefined is none', t => {
  const native = [
    { ...LEAF, index: null },
    { ...LEAF, function: 4, index: 7 },
  ];
  t.deepEqual(cpuidRequest(cpuidFrom(native)), native);
  t.deepEqual(cpuidRequest([{ ...LEAF, index: undefined }]), [{ ...LEAF, index: null }]);
  t.deepEqual(cpuidRequest([]), []);
});

for (const [title, given, message] of [
  ['an object', {}, /^cpuid must be an array; got an object \(Object\)$/u],
  ['a number in it', [1], /^cpuid\[0\] must be an object; got the number 1$/u],
  [
    'an entry with a misspelt field',
    [LEAF, { ...LEAF, leaf: 1 }],
    /^cpuid\[1\] has no 'leaf'; it has function, index, /u,
  ],
  ['an entry without a register', [{ ...LEAF, ebx: undefined }], /^cpuid\[0\]\.ebx must be a number; got undefined$/u],
  ['an index as null', [{ ...LEAF, index: null }], /^cpuid\[0\]\.index must be a number; got null$/u],
] as const) {
  test(`cpuid: ${title} is ERR_INVALID_ARGUMENT`, t => {
    const error = throwsCode(t, 'ERR_INVALID_ARGUMENT', () => cpuidRequest(wrong(given)));
    t.regex(error?.message ?? '', message);
  });
}

for (const [title, given] of [
  ['a leaf past all', { ...LEAF, function: 2 ** 32 }],
  ['a register below all', { ...LEAF, ecx: -1 }],
  ['half an index', { ...LEAF, index: 1.5 }],
] as const) {
  test(`cpuid: ${title} is ERR_OUT_OF_RANGE`, t => {
    throwsCode(t, 'ERR_OUT_OF_RANGE', () => cpuidRequest([given]));
  });
}
