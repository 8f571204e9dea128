import { machine, STOP } from '../helpers/guests.ts';
import { needs, x86 as test } from '../helpers/needs.ts';
import { throwsCode, wrong } from '../helpers/throws.ts';
import { Vm } from '../../ts/index.ts';

test('vcpu.setRegisters: all that was read can be written back', t => {
  using guest = machine(STOP);
  const registers = guest.vcpu.getRegisters();
  guest.vcpu.setRegisters(registers);
  t.deepEqual(guest.vcpu.getRegisters(), registers);
});

test('vcpu.setRegisters: changes what is named and nothing else', t => {
  using guest = machine(STOP);
  const before = guest.vcpu.getRegisters();
  guest.vcpu.setRegisters({ rax: 2n ** 64n - 1n, r15: 15n, rflags: 0x202n, ds: { base: 0x2000n, selector: 0x200 } });
  const expected: object = {
    ...before,
    rax: 2n ** 64n - 1n,
    r15: 15n,
    rflags: 0x202n,
    ds: { ...before.ds, base: 0x2000n, selector: 0x200 },
  };
  t.deepEqual<object, object>(guest.vcpu.getRegisters(), expected);
});

test('vcpu.setRegisters: with something wrong in it changes nothing', t => {
  using guest = machine(STOP);
  const before = guest.vcpu.getRegisters();
  throwsCode(t, 'ERR_INVALID_ARGUMENT', () => guest.vcpu.setRegisters(wrong({ rbx: 1n, rax: 1 })));
  throwsCode(t, 'ERR_INVALID_ARGUMENT', () => guest.vcpu.setRegisters(wrong({ rbx: 1n, eax: 1n })));
  throwsCode(t, 'ERR_OUT_OF_RANGE', () => guest.vcpu.setRegisters({ rbx: 1n, rax: 2n ** 64n }));
  for (const some of [undefined, null, 1, 'rax']) {
    throwsCode(t, 'ERR_INVALID_ARGUMENT', () => guest.vcpu.setRegisters(wrong(some)));
  }
  t.deepEqual(guest.vcpu.getRegisters(), before);
});

test('vcpu.getRegisters: the guest’s own values arrive', async t => {
  // mov ax, 0x1234; mov bx, ax; hlt
  using guest = machine([0xb8, 0x34, 0x12, 0x89, 0xc3, 0xf4]);
  await guest.vcpu.run();
  const { rax, rbx, rip, cs } = guest.vcpu.getRegisters();
  t.deepEqual([rax, rbx, rip, cs?.base], [0x1234n, 0x1234n, 0x1006n, 0n]);
});

needs('aarch64')('vcpu.setRegisters: all that was read can be written back', t => {
  using vm = Vm.create();
  const vcpu = vm.createVcpu();
  const registers = vcpu.getRegisters();
  vcpu.setRegisters(registers);
  vcpu.setRegisters({ x0: 7n, pc: 0x8000n });
  t.like(vcpu.getRegisters(), { x0: 7n, pc: 0x8000n });
});
