import test from 'ava';
import type { ExitSwitches } from '../../ts/index.ts';
import { exitRequest } from '../../ts/exit-switches.ts';
import { throwsCode, wrong } from '../helpers/throws.ts';

const NONE = {
  msr: null,
  hypercalls: [],
  emulationFailure: false,
  disable: [],
  busLock: false,
  notify: null,
  xen: null,
  nisv: false,
};
const ALL_REASONS = { reasons: ['inval', 'unknown', 'filter'], filter: null, denyOthers: false };

for (const [title, given, expected] of [
  ['nothing is asked for where nothing is said', undefined, NONE],
  ['what is undefined is as good as absent', { msr: undefined, notify: undefined, disable: undefined }, NONE],
  ['msr: false is none', { msr: false }, NONE],
  ['msr: true is every reason and no filter', { msr: true }, { ...NONE, msr: ALL_REASONS }],
  ['msr as an object is the same by default', { msr: {} }, { ...NONE, msr: ALL_REASONS }],
  [
    'reasons are those that are named',
    { msr: { reasons: ['filter'] } },
    { ...NONE, msr: { ...ALL_REASONS, reasons: ['filter'] } },
  ],
  [
    'a range is refused, for reads and writes',
    { msr: { filter: [{ base: 0x10, count: 2 }] } },
    {
      ...NONE,
      msr: { ...ALL_REASONS, filter: [{ base: 0x10, count: 2, read: true, write: true, allow: false, bitmap: null }] },
    },
  ],
  [
    'a range can be allowed, or have bits',
    {
      msr: {
        filter: [
          { base: 1, count: 1, write: false, allow: true },
          { base: 2, count: 3, read: false, allow: Uint8Array.of(5) },
        ],
        others: 'deny',
      },
    },
    {
      ...NONE,
      msr: {
        ...ALL_REASONS,
        filter: [
          { base: 1, count: 1, read: true, write: false, allow: true, bitmap: null },
          { base: 2, count: 3, read: false, write: true, allow: false, bitmap: Uint8Array.of(5) },
        ],
        denyOthers: true,
      },
    },
  ],
  // The core refuses it: dropping it here would let everything through.
  [
    'others denied without a range reach the core',
    { msr: { others: 'deny' } },
    { ...NONE, msr: { ...ALL_REASONS, filter: [], denyOthers: true } },
  ],
  [
    'all the others go as they are',
    {
      hypercalls: ['map-gpa-range'],
      emulationFailure: true,
      disable: ['hlt', 'pause'],
      busLock: true,
      notify: { window: 7 },
      xen: { msr: 0x4000_0000 },
      nisv: true,
    },
    {
      msr: null,
      hypercalls: ['map-gpa-range'],
      emulationFailure: true,
      disable: ['hlt', 'pause'],
      busLock: true,
      notify: 7,
      xen: 0x4000_0000,
      nisv: true,
    },
  ],
] as const satisfies readonly (readonly [string, ExitSwitches | undefined, object])[]) {
  test(`exits: ${title}`, t => t.deepEqual(exitRequest(given), wrong(expected)));
}

for (const [title, given, message] of [
  ['an array', [], /^exits must be an object; got an array$/u],
  ['an exit that there is not', { vmx: true }, /^exits has no 'vmx'; it has msr, hypercalls, /u],
  ['msr as null', { msr: null }, /^exits\.msr must be an object; got null$/u],
  ['msr with what there is not', { msr: { reason: [] } }, /^exits\.msr has no 'reason'; it has reasons, /u],
  [
    'reasons as a word',
    { msr: { reasons: 'inval' } },
    /^exits\.msr\.reasons must be an array; got the string "inval"$/u,
  ],
  [
    'a reason that there is not',
    { msr: { reasons: ['inval', 'other'] } },
    /^exits\.msr\.reasons\[1\] must be 'inval' or/u,
  ],
  ['a filter that is no list', { msr: { filter: {} } }, /^exits\.msr\.filter must be an array; got an object/u],
  [
    'a hole in a filter',
    { msr: { filter: [undefined] } },
    /^exits\.msr\.filter\[0\]\.base must be a number; got undef/u,
  ],
  ['a range without a count', { msr: { filter: [{ base: 1 }] } }, /^exits\.msr\.filter\[0\]\.count must be a number/u],
  [
    'a range of a bigint',
    { msr: { filter: [{ base: 1n, count: 1 }] } },
    /^exits\.msr\.filter\[0\]\.base must be a num/u,
  ],
  ['reads as a number', { msr: { filter: [{ base: 1, count: 1, read: 1 }] } }, /\[0\]\.read must be true or false/u],
  ['bits as a list', { msr: { filter: [{ base: 1, count: 1, allow: [1] }] } }, /\[0\]\.allow must be a Uint8Array/u],
  [
    'others as a boolean',
    { msr: { others: false } },
    /^exits\.msr\.others must be 'allow' or 'deny'; got the boolean/u,
  ],
  [
    'a hypercall that there is not',
    { hypercalls: ['kick-cpu'] },
    /^exits\.hypercalls\[0\] must be 'map-gpa-range'; got/u,
  ],
  ['hypercalls as true', { hypercalls: true }, /^exits\.hypercalls must be an array; got the boolean true$/u],
  [
    'emulation as a number',
    { emulationFailure: 1 },
    /^exits\.emulationFailure must be true or false; got the number 1$/u,
  ],
  [
    'an exit that stays',
    { disable: ['hlt', 'io'] },
    /^exits\.disable\[1\] must be 'mwait' or 'hlt' or .*; got the stri/u,
  ],
  ['bus locks as a word', { busLock: 'exit' }, /^exits\.busLock must be true or false/u],
  ['a window as a number', { notify: 5 }, /^exits\.notify must be an object; got the number 5$/u],
  ['no window', { notify: {} }, /^exits\.notify\.window must be a number; got undefined$/u],
  ['xen as true', { xen: true }, /^exits\.xen must be an object; got the boolean true$/u],
  ['no register', { xen: {} }, /^exits\.xen\.msr must be a number; got undefined$/u],
  ['nisv as null', { nisv: null }, /^exits\.nisv must be true or false; got null$/u],
] as const) {
  test(`exits: ${title} is ERR_INVALID_ARGUMENT`, t => {
    const error = throwsCode(t, 'ERR_INVALID_ARGUMENT', () => exitRequest(wrong(given)));
    t.regex(error?.message ?? '', message);
  });
}

for (const [title, given] of [
  ['a register below all', { msr: { filter: [{ base: -1, count: 1 }] } }],
  ['a register past all', { msr: { filter: [{ base: 2 ** 32, count: 1 }] } }],
  ['half a register', { msr: { filter: [{ base: 0, count: 0.5 }] } }],
  ['a window past all', { notify: { window: 2 ** 32 } }],
  ['a register of Xen’s past all', { xen: { msr: 2 ** 32 } }],
  ['a window below all', { notify: { window: -1 } }],
] as const) {
  test(`exits: ${title} is ERR_OUT_OF_RANGE`, t => {
    throwsCode(t, 'ERR_OUT_OF_RANGE', () => exitRequest(given));
  });
}

test('exits: bits that others may write to are copied', t => {
  const shared = new Uint8Array(new SharedArrayBuffer(1)).fill(3);
  const { msr } = exitRequest({ msr: { filter: [{ base: 0, count: 2, allow: shared }] } });
  const bitmap = msr?.filter?.[0]?.bitmap;
  shared.fill(0);
  t.deepEqual(bitmap, Uint8Array.of(3));
});
