import test from 'ava';
import { decode, type Exit } from '../../ts/exit.ts';
import type { NativeExit } from '../../ts/native.ts';

const data = Uint8Array.of(1, 2);
const none = new Uint8Array();

/** Each kind as the addon delivers it, and as the program sees it. */
const TABLE: readonly (readonly [NativeExit, Exit])[] = [
  [
    { kind: 'io', out: true, port: 0x80, size: 1, count: 2, data },
    { kind: 'io', direction: 'out', port: 0x80, size: 1, count: 2, data },
  ],
  [
    { kind: 'io', out: false, port: 0x60, size: 2, count: 1, data: none },
    { kind: 'io', direction: 'in', port: 0x60, size: 2, count: 1 },
  ],
  [
    { kind: 'mmio', write: true, gpa: 2 ** 40, size: 2, data },
    { kind: 'mmio', direction: 'write', gpa: 2 ** 40, size: 2, data },
  ],
  [
    { kind: 'mmio', write: false, gpa: 0x9000, size: 8, data: none },
    { kind: 'mmio', direction: 'read', gpa: 0x9000, size: 8 },
  ],
  [{ kind: 'hlt' }, { kind: 'hlt' }],
  [{ kind: 'intr' }, { kind: 'intr' }],
  [{ kind: 'shutdown' }, { kind: 'shutdown' }],
  [
    { kind: 'fail-entry', reason: 2n ** 63n, cpu: 1 },
    { kind: 'fail-entry', reason: 2n ** 63n, cpu: 1 },
  ],
  [
    { kind: 'internal-error', suberror: 1, data: [1n, 2n], instruction: data },
    { kind: 'internal-error', suberror: 1, data: [1n, 2n], instruction: data },
  ],
  [
    { kind: 'internal-error', suberror: 3, data: [], instruction: null },
    { kind: 'internal-error', suberror: 3, data: [] },
  ],
  [
    { kind: 'system-event', event: 'shutdown', type: 1, data: [], flags: 0n },
    { kind: 'system-event', event: 'shutdown', type: 1, data: [], flags: 0n },
  ],
  [
    { kind: 'system-event', event: 'reset', type: 2, data: [1n], flags: null },
    { kind: 'system-event', event: 'reset', type: 2, data: [1n] },
  ],
  [
    { kind: 'system-event', event: 'unknown', type: 99, data: [], flags: null },
    { kind: 'system-event', event: 'unknown', type: 99, data: [] },
  ],
  [
    { kind: 'run-failed', errno: -28 },
    { kind: 'run-failed', errno: -28, errnoName: 'ENOSPC' },
  ],
  [
    { kind: 'unknown', reason: 99, bytes: data },
    { kind: 'unknown', reason: 99, bytes: data },
  ],
];

for (const [native, expected] of TABLE) {
  test(`exit: ${JSON.stringify(expected, (_, value: unknown) => (typeof value === 'bigint' ? `${value}n` : value))}`, t => {
    const exit = decode(native);
    t.deepEqual(exit, expected);
    t.true(Object.isFrozen(exit));
    if (exit.kind === 'internal-error' || exit.kind === 'system-event') t.true(Object.isFrozen(exit.data));
    t.deepEqual(structuredClone(exit), expected);
  });
}
