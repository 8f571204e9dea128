import { ASK, asked, byteOf, machine, STOP, STOPPED } from '../helpers/guests.ts';
import { onKvm as test } from '../helpers/needs.ts';
import { rejectsCode, throwsCode, wrong } from '../helpers/throws.ts';

for (const [title, answer] of [
  ['a number', 0x2a],
  ['a bigint', 0x2an],
  ['bytes', Uint8Array.of(0x2a)],
] as const) {
  test(`vcpu.answer: ${title} is what the guest reads`, async t => {
    using guest = machine(ASK);
    t.deepEqual(await guest.vcpu.run(), asked());
    guest.vcpu.answer(answer);
    t.deepEqual(await guest.vcpu.run(), STOPPED);
    t.is(byteOf(guest.vcpu), 0x2a);
  });
}

test('vcpu.answer: an exit is answered once', async t => {
  using guest = machine(ASK);
  await guest.vcpu.run();
  guest.vcpu.answer(1);
  throwsCode(t, 'ERR_NO_ANSWER_EXPECTED', () => guest.vcpu.answer(2));
  await guest.vcpu.run();
  t.is(byteOf(guest.vcpu), 1);
});

test('vcpu.answer: running on without one is ERR_EXIT_UNANSWERED, and the answer still counts', async t => {
  using guest = machine(ASK);
  await guest.vcpu.run();
  await rejectsCode(t, 'ERR_EXIT_UNANSWERED', guest.vcpu.run());
  await rejectsCode(t, 'ERR_EXIT_UNANSWERED', guest.vcpu.settle());
  throwsCode(t, 'ERR_EXIT_UNANSWERED', () => guest.vcpu.runSync());
  guest.vcpu.answer(0x17);
  t.deepEqual(await guest.vcpu.run(), STOPPED);
  t.is(byteOf(guest.vcpu), 0x17);
});

test('vcpu.answer: an exit that wants none is ERR_NO_ANSWER_EXPECTED', async t => {
  using guest = machine(STOP);
  throwsCode(t, 'ERR_NO_ANSWER_EXPECTED', () => guest.vcpu.answer(1));
  await guest.vcpu.run();
  throwsCode(t, 'ERR_NO_ANSWER_EXPECTED', () => guest.vcpu.answer(1));
});

test('vcpu.answer: what cannot be an answer is refused, and the exit stays unanswered', async t => {
  using guest = machine(ASK);
  await guest.vcpu.run();
  for (const value of ['1', null, undefined, [1], new Uint16Array(1)]) {
    throwsCode(t, 'ERR_INVALID_ARGUMENT', () => guest.vcpu.answer(wrong(value)));
  }
  for (const value of [-1, 1.5, -1n, 2n ** 64n]) {
    throwsCode(t, 'ERR_OUT_OF_RANGE', () => guest.vcpu.answer(value));
  }
  throwsCode(t, 'ERR_INVALID_ARGUMENT', () => guest.vcpu.answer(Uint8Array.of(1, 2)));
  t.regex(throwsCode(t, 'ERR_OUT_OF_RANGE', () => guest.vcpu.answer(-1))?.message ?? '', /an integer from 0/u);
  t.regex(throwsCode(t, 'ERR_INVALID_ARGUMENT', () => guest.vcpu.answer(wrong(null)))?.message ?? '', /a bigint or/u);
  await rejectsCode(t, 'ERR_EXIT_UNANSWERED', guest.vcpu.run());
});

test("vcpu.answer: 'fault' is for exits that take one, and the exit stays unanswered", async t => {
  using guest = machine(ASK);
  throwsCode(t, 'ERR_NO_ANSWER_EXPECTED', () => guest.vcpu.answer('fault'));
  await guest.vcpu.run();
  throwsCode(t, 'ERR_INVALID_ARGUMENT', () => guest.vcpu.answer('fault'));
  await rejectsCode(t, 'ERR_EXIT_UNANSWERED', guest.vcpu.run());
  guest.vcpu.answer(0x33);
  t.deepEqual(await guest.vcpu.run(), STOPPED);
  t.is(byteOf(guest.vcpu), 0x33);
});
