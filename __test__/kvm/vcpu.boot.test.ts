import { KiB, Vm } from '../../ts/index.ts';
import { machine, STOP } from '../helpers/guests.ts';
import { x86 as test } from '../helpers/needs.ts';
import { throwsCode, wrong } from '../helpers/throws.ts';

test('vcpu.boot: long mode with user privilege runs 64-bit code in ring 3', async t => {
  // mov rax, 0x1122334455667788; out 0x80, al
  using guest = machine([0x48, 0xb8, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0xe6, 0x80]);
  const { tables } = guest.vcpu.boot({ mode: 'long', privilege: 'user', entry: 0x1000, stack: 0x8000 });
  const slot = guest.vm.memory.slotAt(tables?.gpa ?? 0);
  t.deepEqual({ gpa: slot?.gpa, size: slot?.size }, { ...tables });
  const data = Uint8Array.of(0x88);
  t.deepEqual(await guest.vcpu.run(), { kind: 'io', direction: 'out', port: 0x80, size: 1, count: 1, data });
  const { rax, rsp, cs } = guest.vcpu.getRegisters();
  t.deepEqual([rax, rsp, cs?.l, (cs?.selector ?? 0) & 3], [0x1122334455667788n, 0x8000n, true, 3]);
});

test('vcpu.boot: in user mode hlt is forbidden', async t => {
  using guest = machine(STOP);
  guest.vcpu.boot({ mode: 'long', privilege: 'user', entry: 0x1000 });
  t.deepEqual(await guest.vcpu.run(), { kind: 'shutdown' });
});

test('vcpu.boot: long mode with kernel privilege may halt', async t => {
  using guest = machine(STOP);
  guest.vcpu.boot({ mode: 'long', entry: 0x1000 });
  t.deepEqual(await guest.vcpu.run(), { kind: 'hlt' });
});

test('vcpu.boot: protected mode runs 32-bit code', async t => {
  // mov eax, 0x12345678; hlt
  using guest = machine([0xb8, 0x78, 0x56, 0x34, 0x12, 0xf4]);
  t.deepEqual(guest.vcpu.boot({ mode: 'protected', entry: 0x1000 }), {});
  t.deepEqual(await guest.vcpu.run(), { kind: 'hlt' });
  t.is(guest.vcpu.getRegisters().rax, 0x12345678n);
});

test('vcpu.boot: tables go where they are told, and give way to the next boot', t => {
  using guest = machine(STOP);
  const slots = guest.vm.memory.slots.length;
  const told = guest.vcpu.boot({ mode: 'long', entry: 0x1000, tables: 0x20_0000 });
  t.deepEqual(told, { tables: { gpa: 0x20_0000, size: 128 * KiB } });
  t.true(Object.isFrozen(told) && Object.isFrozen(told.tables));
  t.deepEqual(guest.vcpu.boot({ mode: 'real', entry: 0x1000 }), {});
  t.is(guest.vm.memory.slots.length, slots);
});

test('vcpu.boot: what makes no sense is refused', t => {
  using vm = Vm.create();
  const vcpu = vm.createVcpu();
  const table: readonly [unknown, 'ERR_INVALID_ARGUMENT' | 'ERR_OUT_OF_RANGE' | 'ERR_UNALIGNED'][] = [
    [undefined, 'ERR_INVALID_ARGUMENT'],
    [{ mode: 'el1', entry: 0 }, 'ERR_INVALID_ARGUMENT'],
    [{ mode: 'real' }, 'ERR_INVALID_ARGUMENT'],
    [{ mode: 'real', entry: '0x1000' }, 'ERR_INVALID_ARGUMENT'],
    [{ mode: 'real', entry: 0, entri: 0 }, 'ERR_INVALID_ARGUMENT'],
    [{ mode: 'real', entry: 0, privilege: 'user' }, 'ERR_INVALID_ARGUMENT'],
    [{ mode: 'real', entry: 0, privilege: 'root' }, 'ERR_INVALID_ARGUMENT'],
    [{ mode: 'real', entry: 0, tables: 0 }, 'ERR_INVALID_ARGUMENT'],
    [{ mode: 'real', entry: 2 ** 30 }, 'ERR_INVALID_ARGUMENT'],
    [{ mode: 'real', entry: -1 }, 'ERR_OUT_OF_RANGE'],
    [{ mode: 'long', entry: 0, stack: 8 }, 'ERR_UNALIGNED'],
    [{ mode: 'long', entry: 0, tables: 100 }, 'ERR_UNALIGNED'],
  ];
  for (const [where, code] of table) throwsCode(t, code, () => vcpu.boot(wrong(where)));
});
