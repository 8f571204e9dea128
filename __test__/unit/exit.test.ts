import test from 'ava';
import type { Exit } from '../../ts/exit.ts';
import { decode } from '../../ts/exit-form.ts';
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
    { kind: 'internal-error', suberror: 1, name: 'emulation', data: [1n, 2n], flags: 1n, instruction: data },
    { kind: 'internal-error', suberror: 1, name: 'emulation', data: [1n, 2n], flags: 1n, instruction: data },
  ],
  [
    { kind: 'internal-error', suberror: 3, name: 'delivery-ev', data: [], flags: null, instruction: null },
    { kind: 'internal-error', suberror: 3, name: 'delivery-ev', data: [] },
  ],
  [
    { kind: 'internal-error', suberror: 9, name: 'unknown', data: [], flags: null, instruction: null },
    { kind: 'internal-error', suberror: 9, name: 'unknown', data: [] },
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
    { kind: 'unknown', reason: 99, bytes: data, hardwareReason: null },
    { kind: 'unknown', reason: 99, bytes: data },
  ],
  [
    { kind: 'unknown', reason: 0, bytes: data, hardwareReason: 7n },
    { kind: 'unknown', reason: 0, bytes: data, hardwareReason: 7n },
  ],
  [
    { kind: 'hypercall', nr: 12n, args: [1n, 2n, 3n, 4n, 5n, 6n], flags: 1n },
    { kind: 'hypercall', arch: 'x86_64', nr: 12n, args: [1n, 2n, 3n, 4n, 5n, 6n], flags: 1n },
  ],
  [
    { kind: 'hypercall', nr: 0xc600_0001n, args: null, flags: 0n },
    { kind: 'hypercall', arch: 'aarch64', nr: 0xc600_0001n, flags: 0n },
  ],
  [
    { kind: 'debug', exception: 1, pc: 0xfff0n, dr6: 0x4ff0n, dr7: 0x400n },
    { kind: 'debug', arch: 'x86_64', exception: 1, pc: 0xfff0n, dr6: 0x4ff0n, dr7: 0x400n },
  ],
  [
    { kind: 'debug', exception: 3, pc: 0xfff0n, dr6: null, dr7: null },
    { kind: 'debug', arch: 'x86_64', exception: 3, pc: 0xfff0n },
  ],
  [
    { kind: 'debug-arm', hsr: 0xd200_0022n, far: 8n },
    { kind: 'debug', arch: 'aarch64', hsr: 0xd200_0022n, far: 8n },
  ],
  [
    { kind: 'debug-arm', hsr: 0xf200_0000n, far: null },
    { kind: 'debug', arch: 'aarch64', hsr: 0xf200_0000n },
  ],
  [
    { kind: 'exception', exception: 17, errorCode: 1 },
    { kind: 'exception', exception: 17, errorCode: 1 },
  ],
  [{ kind: 'irq-window-open' }, { kind: 'irq-window-open' }],
  [
    { kind: 'set-tpr', cr8: 2n },
    { kind: 'set-tpr', cr8: 2n },
  ],
  [
    { kind: 'tpr-access', rip: 1n, write: true },
    { kind: 'tpr-access', rip: 1n, write: true },
  ],
  [{ kind: 'nmi' }, { kind: 'nmi' }],
  [
    { kind: 'ioapic-eoi', vector: 0x31 },
    { kind: 'ioapic-eoi', vector: 0x31 },
  ],
  [
    { kind: 'hyperv-synic', msr: 0x4000_0080, control: 1n, evtPage: 2n, msgPage: 3n },
    { kind: 'hyperv', type: 'synic', msr: 0x4000_0080, control: 1n, evtPage: 2n, msgPage: 3n },
  ],
  [
    { kind: 'hyperv-hcall', input: 0x5cn, params: [1n, 2n] },
    { kind: 'hyperv', type: 'hcall', input: 0x5cn, params: [1n, 2n] },
  ],
  [
    { kind: 'hyperv-syndbg', msr: 0x4000_00f1, control: 1n, sendPage: 2n, recvPage: 3n, pendingPage: 4n },
    { kind: 'hyperv', type: 'syndbg', msr: 0x4000_00f1, control: 1n, sendPage: 2n, recvPage: 3n, pendingPage: 4n },
  ],
  [
    { kind: 'hyperv-unknown', number: 9, bytes: data },
    { kind: 'hyperv', type: 'unknown', number: 9, bytes: data },
  ],
  [
    { kind: 'xen-hcall', longmode: true, cpl: 3, input: 17n, params: [1n, 2n, 3n, 4n, 5n, 6n] },
    { kind: 'xen', type: 'hcall', longmode: true, cpl: 3, input: 17n, params: [1n, 2n, 3n, 4n, 5n, 6n] },
  ],
  [
    { kind: 'xen-unknown', number: 9, bytes: data },
    { kind: 'xen', type: 'unknown', number: 9, bytes: data },
  ],
  [
    { kind: 'rdmsr', reason: 'filter', reasonBits: 4, index: 0xc000_0080 },
    { kind: 'rdmsr', reason: 'filter', reasonBits: 4, index: 0xc000_0080 },
  ],
  [
    { kind: 'wrmsr', reason: 'something newer', reasonBits: 8, index: 1, data: 2n ** 64n - 1n },
    { kind: 'wrmsr', reason: 'other', reasonBits: 8, index: 1, data: 2n ** 64n - 1n },
  ],
  [{ kind: 'dirty-ring-full' }, { kind: 'dirty-ring-full' }],
  [{ kind: 'bus-lock' }, { kind: 'bus-lock' }],
  [{ kind: 'ap-reset-hold' }, { kind: 'ap-reset-hold' }],
  [
    { kind: 'notify', flags: 1, contextInvalid: true },
    { kind: 'notify', flags: 1, contextInvalid: true },
  ],
  [
    {
      kind: 'memory-fault',
      gpa: 0x1000,
      size: 4096,
      flags: 8n,
      private: true,
      rwx: null,
      errno: -14,
      cause: 'conversion',
    },
    {
      kind: 'memory-fault',
      gpa: 0x1000,
      size: 4096,
      flags: 8n,
      access: 'private',
      errno: -14,
      errnoName: 'EFAULT',
      cause: 'conversion',
    },
  ],
  [
    { kind: 'memory-fault', gpa: 0, size: 4096, flags: 2n, private: false, rwx: 'write', errno: -133, cause: 'newer' },
    {
      kind: 'memory-fault',
      gpa: 0,
      size: 4096,
      flags: 2n,
      access: 'shared',
      rwx: 'write',
      errno: -133,
      errnoName: 'EHWPOISON',
      cause: 'unknown',
    },
  ],
  [
    { kind: 'arm-nisv', wide: false, esrIss: 1n, faultIpa: 2 ** 51 },
    { kind: 'arm-nisv', esrIss: 1n, faultIpa: 2 ** 51 },
  ],
  [
    { kind: 'arm-nisv', wide: true, esrIss: 1n, faultIpa: 2 ** 51 },
    { kind: 'arm-ldst64b', esrIss: 1n, faultIpa: 2 ** 51 },
  ],
  [
    { kind: 'arm-sea', flags: 1n, esr: 2n, gva: 3n, gpa: 4 },
    { kind: 'arm-sea', flags: 1n, esr: 2n, gva: 3n, gpa: 4 },
  ],
  [
    { kind: 'arm-sea', flags: 0n, esr: 0x400n, gva: null, gpa: null },
    { kind: 'arm-sea', flags: 0n, esr: 0x400n },
  ],
  [
    { kind: 'tdx', flags: 0n, nr: 0x10002n, ret: 1n, data: [1n, 2n, 3n, 4n, 5n] },
    { kind: 'tdx', flags: 0n, nr: 0x10002n, ret: 1n, data: [1n, 2n, 3n, 4n, 5n] },
  ],
  [
    { kind: 'snp-req-certs', gpa: 0x4000n, npages: 4n },
    { kind: 'snp-req-certs', gpa: 0x4000n, npages: 4n },
  ],
];

for (const [native, expected] of TABLE) {
  test(`exit: ${JSON.stringify(expected, (_, value: unknown) => (typeof value === 'bigint' ? `${value}n` : value))}`, t => {
    const exit = decode(native);
    t.deepEqual(exit, expected);
    t.true(Object.isFrozen(exit));
    for (const list of Object.values(exit).filter(Array.isArray)) t.true(Object.isFrozen(list));
    t.deepEqual(structuredClone(exit), expected);
  });
}
