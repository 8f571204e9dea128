import { machine, SPIN } from '../helpers/guests.ts';
import { x86 as test } from '../helpers/needs.ts';
import { rejectsCode, throwsCode } from '../helpers/throws.ts';

test('vcpu: while a run is pending, whatever else drives or reads it is ERR_BUSY', async t => {
  using guest = machine(SPIN);
  const { vcpu } = guest;
  const running = vcpu.run();
  await rejectsCode(t, 'ERR_BUSY', vcpu.run());
  await rejectsCode(t, 'ERR_BUSY', vcpu.settle());
  throwsCode(t, 'ERR_BUSY', () => vcpu.runSync());
  throwsCode(t, 'ERR_BUSY', () => vcpu.getRegisters());
  throwsCode(t, 'ERR_BUSY', () => vcpu.setRegisters({ rax: 0n }));
  throwsCode(t, 'ERR_BUSY', () => vcpu.boot({ mode: 'real', entry: 0x1000 }));
  throwsCode(t, 'ERR_BUSY', () => vcpu.answer(1));
  vcpu.kick();
  t.deepEqual(await running, { kind: 'intr' });
});
