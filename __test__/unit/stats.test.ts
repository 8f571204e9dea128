import test from 'ava';
import type { NativeStat } from '../../ts/native-stats.ts';
import { statsFrom } from '../../ts/stats.ts';

const COUNTER: NativeStat = {
  name: 'exits',
  kind: 'cumulative',
  unit: 'none',
  base: 10,
  exponent: 0,
  bucketSize: null,
  values: [2n ** 64n - 1n],
};
const SCALED = { unit: 'none', base: 10, exponent: 0 } as const;

test('stats: what there is none of is absent', t => {
  t.deepEqual(statsFrom({ kvm: null, exits: [], guestMs: null }), { exits: {} });
});

test('stats: exits are counts by kind, and their times the sum and each', t => {
  const exits = [
    { kind: 'io', count: 12, handlerMs: 1.5 },
    { kind: 'hlt', count: 1, handlerMs: 0.25 },
  ];
  t.deepEqual(statsFrom({ kvm: null, exits, guestMs: 3 }), {
    exits: { io: 12, hlt: 1 },
    time: { guestMs: 3, handlerMs: 1.75, handlerMsByKind: { io: 1.5, hlt: 0.25 } },
  });
  t.deepEqual(statsFrom({ kvm: null, exits: [], guestMs: 0 }).time, { guestMs: 0, handlerMs: 0, handlerMsByKind: {} });
});

test('stats: KVM’s own are known by their names, a counter with one value and a histogram with all', t => {
  const kvm: NativeStat[] = [
    COUNTER,
    { ...COUNTER, name: 'wait_ns', kind: 'instant', unit: 'seconds', exponent: -9, values: [5n] },
    { ...COUNTER, name: 'pages', kind: 'peak', unit: 'bytes', base: 2, exponent: 20, values: [6n] },
    { ...COUNTER, name: 'chain', kind: 'linear-hist', unit: 'cycles', bucketSize: 4, values: [1n, 2n] },
    { ...COUNTER, name: 'poll', kind: 'log-hist', unit: 'boolean', values: [3n] },
  ];
  t.deepEqual(statsFrom({ kvm, exits: [], guestMs: null }).kvm, {
    exits: { ...SCALED, kind: 'cumulative', value: 2n ** 64n - 1n },
    wait_ns: { kind: 'instant', unit: 'seconds', base: 10, exponent: -9, value: 5n },
    pages: { kind: 'peak', unit: 'bytes', base: 2, exponent: 20, value: 6n },
    chain: { ...SCALED, kind: 'linear-hist', unit: 'cycles', bucketSize: 4, value: [1n, 2n] },
    poll: { ...SCALED, kind: 'log-hist', unit: 'boolean', value: [3n] },
  });
});

test('stats: what a newer kernel says is unknown, with its values', t => {
  const kvm: NativeStat[] = [
    { ...COUNTER, name: 'new', kind: 'unknown', unit: 'unknown', base: null, values: [1n, 2n] },
    { ...COUNTER, name: '__proto__', kind: 'unknown', values: [] },
  ];
  const stats = statsFrom({ kvm, exits: [], guestMs: null }).kvm ?? {};
  t.deepEqual(Object.entries(stats), [
    ['new', { kind: 'unknown', unit: 'unknown', exponent: 0, value: [1n, 2n] }],
    ['__proto__', { ...SCALED, kind: 'unknown', value: [] }],
  ]);
});

test('stats: are frozen to their last value', t => {
  const kvm: NativeStat[] = [COUNTER, { ...COUNTER, name: 'poll', kind: 'log-hist' }];
  const stats = statsFrom({ kvm, exits: [{ kind: 'io', count: 1, handlerMs: 1 }], guestMs: 1 });
  const parts = [stats, stats.exits, stats.time, stats.time?.handlerMsByKind, stats.kvm];
  const values = Object.values(stats.kvm ?? {}).flatMap(stat => [stat, stat.value]);
  for (const part of [...parts, ...values]) t.true(Object.isFrozen(part));
});
