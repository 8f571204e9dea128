import { machine, OTHER_REGISTER, REGISTER, set, STOP } from '../helpers/guests.ts';
import { needs, onKvm as test, x86 } from '../helpers/needs.ts';
import { throwsCode, wrong } from '../helpers/throws.ts';

test('vcpu.setRegisters: all that was read can be written back', t => {
  using guest = machine(STOP);
  const registers = guest.vcpu.getRegisters();
  guest.vcpu.setRegisters(registers);
  t.deepEqual(guest.vcpu.getRegisters(), registers);
});

x86('vcpu.setRegisters: changes what is named and nothing else', t => {
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
  throwsCode(t, 'ERR_INVALID_ARGUMENT', () => guest.vcpu.setRegisters(wrong({ [OTHER_REGISTER]: 1n, [REGISTER]: 1 })));
  throwsCode(t, 'ERR_INVALID_ARGUMENT', () => guest.vcpu.setRegisters(wrong({ [OTHER_REGISTER]: 1n, eax: 1n })));
  throwsCode(t, 'ERR_OUT_OF_RANGE', () => guest.vcpu.setRegisters({ [OTHER_REGISTER]: 1n, [REGISTER]: 2n ** 64n }));
  for (const some of [undefined, null, 1, 'rax']) {
    throwsCode(t, 'ERR_INVALID_ARGUMENT', () => guest.vcpu.setRegisters(wrong(some)));
  }
  t.deepEqual(guest.vcpu.getRegisters(), before);
});

x86('vcpu.getRegisters: the guest’s own values arrive', async t => {
  // mov ax, 0x1234; mov bx, ax; hlt
  using guest = machine([0xb8, 0x34, 0x12, 0x89, 0xc3, 0xf4]);
  await guest.vcpu.run();
  const { rax, rbx, rip, cs } = guest.vcpu.getRegisters();
  t.deepEqual([rax, rbx, rip, cs?.base], [0x1234n, 0x1234n, 0x1006n, 0n]);
});

needs('aarch64')('vcpu.setRegisters: changes what is named and nothing else, also of these', t => {
  using guest = machine(STOP);
  const before = guest.vcpu.getRegisters();
  const some = { x0: 2n ** 64n - 1n, x30: 30n, pc: 0x8000n, sp: 0x7000n, spEl1: 0x6000n, elrEl1: 0x5000n };
  guest.vcpu.setRegisters(some);
  t.deepEqual<object, object>(guest.vcpu.getRegisters(), { ...before, ...some });
});

needs('aarch64')('vcpu.getRegisters: the guest’s own values arrive, also of these', async t => {
  using guest = machine(set(0x12), STOP);
  await guest.vcpu.run();
  await guest.vcpu.settle();
  const { x0, x1, pc } = guest.vcpu.getRegisters();
  t.deepEqual([x0, x1, pc], [0x12n, 0x9_00f4n, 0x1010n]);
});
