import test from 'ava';
import type { Answer, Exit, Handlers } from '../../ts/index.ts';
import { Life } from '../../ts/life.ts';
import { Seat } from '../../ts/seat.ts';
import { serve } from '../../ts/serve.ts';
import { wants } from '../../ts/answer.ts';
import { rejectsCode, wrong } from '../helpers/throws.ts';

const HALT: Exit = { kind: 'hlt' };
const READ: Exit = { kind: 'rdmsr', reason: 'filter', reasonBits: 4, index: 1 };
const WRITE: Exit = { kind: 'wrmsr', reason: 'filter', reasonBits: 4, index: 1, data: 2n };
const TDX: Exit = { kind: 'tdx', flags: 0n, nr: 0n, ret: 0n, data: [] };
const CALL: Exit = { kind: 'hypercall', arch: 'x86_64', nr: 12n, args: [], flags: 0n };

/** Serves these exits, then a halt that nobody handles; gives what was answered. */
async function answersTo(exits: readonly Exit[], handlers: Handlers): Promise<(Answer | 'fault')[]> {
  const rest = [...exits];
  const answers: (Answer | 'fault')[] = [];
  const exit = await serve(
    {
      seat: new Seat(new Life()),
      run: async () => rest.shift() ?? HALT,
      answer: value => {
        answers.push(value);
      },
    },
    handlers,
    undefined,
  );
  if (rest.length > 0 || exit !== HALT) throw new Error(`it ended at ${exit.kind}, before ${rest.length} more`);
  return answers;
}

test("serve: an rdmsr is answered by a value or by 'fault'", async t => {
  t.deepEqual(await answersTo([READ], { rdmsr: () => 7n }), [7n]);
  t.deepEqual(await answersTo([READ, READ], { rdmsr: async () => 'fault' as const }), ['fault', 'fault']);
});

test("serve: a wrmsr is answered by 'fault', or not at all", async t => {
  t.deepEqual(await answersTo([WRITE], { wrmsr: () => 'fault' }), ['fault']);
  t.deepEqual(await answersTo([WRITE, WRITE], { wrmsr: () => undefined }), []);
});

test("serve: 'stop' ends it at an exit that needs no answer, and at no other", async t => {
  for (const [exit, handlers] of [
    [WRITE, { wrmsr: () => 'stop' }],
    [TDX, { tdx: () => 'stop' }],
  ] satisfies [Exit, Handlers][]) {
    await t.throwsAsync(answersTo([exit], handlers), { message: `it ended at ${exit.kind}, before 0 more` });
  }
  await rejectsCode(t, 'ERR_INVALID_ARGUMENT', answersTo([READ], { rdmsr: () => wrong('stop') }));
  await rejectsCode(t, 'ERR_INVALID_ARGUMENT', answersTo([CALL], { hypercall: () => 'stop' }));
});

test('serve: an answer that is optional is given where there is one', async t => {
  t.deepEqual(await answersTo([TDX], { tdx: () => 1n }), [1n]);
  t.deepEqual(await answersTo([TDX], { tdx: () => undefined }), []);
});

test("serve: 'fault' is for model-specific registers alone", async t => {
  await rejectsCode(t, 'ERR_INVALID_ARGUMENT', answersTo([TDX], { tdx: () => wrong('fault') }));
  await rejectsCode(t, 'ERR_INVALID_ARGUMENT', answersTo([CALL], { hypercall: () => wrong('fault') }));
  await rejectsCode(t, 'ERR_INVALID_ARGUMENT', answersTo([HALT], { hlt: () => wrong('fault') }));
});

test('serve: nothing for an exit that wants an answer is ERR_EXIT_UNANSWERED and says what it takes', async t => {
  const read = await rejectsCode(t, 'ERR_EXIT_UNANSWERED', answersTo([READ], { rdmsr: () => wrong(undefined) }));
  t.regex(read?.message ?? '', /'rdmsr' handler returned nothing for an exit that wants an answer: .* or 'fault'$/u);
  const call = await rejectsCode(t, 'ERR_EXIT_UNANSWERED', answersTo([CALL], { hypercall: () => undefined }));
  t.regex(call?.message ?? '', /'hypercall' handler returned nothing .* a bigint or a Uint8Array$/u);
});

test('wants: which exits wait for an answer', t => {
  const unknown = { type: 'unknown', number: 9, bytes: new Uint8Array() } as const;
  const table: readonly (readonly [Exit, ReturnType<typeof wants>])[] = [
    [{ kind: 'io', direction: 'in', port: 1, size: 1, count: 1 }, 'answer'],
    [{ kind: 'io', direction: 'out', port: 1, size: 1, count: 1, data: new Uint8Array(1) }, 'nothing'],
    [{ kind: 'mmio', direction: 'read', gpa: 1, size: 1 }, 'answer'],
    [{ kind: 'mmio', direction: 'write', gpa: 1, size: 1, data: new Uint8Array(1) }, 'nothing'],
    [CALL, 'answer'],
    [{ kind: 'hypercall', arch: 'aarch64', nr: 1n, flags: 0n }, 'nothing'],
    [{ kind: 'hyperv', type: 'synic', msr: 1, control: 0n, evtPage: 0n, msgPage: 0n }, 'nothing'],
    [{ kind: 'hyperv', type: 'hcall', input: 0n, params: [] }, 'answer'],
    [{ kind: 'hyperv', type: 'syndbg', msr: 1, control: 0n, sendPage: 0n, recvPage: 0n, pendingPage: 0n }, 'answer'],
    [{ kind: 'hyperv', ...unknown }, 'nothing'],
    [{ kind: 'xen', type: 'hcall', longmode: true, cpl: 0, input: 0n, params: [] }, 'answer'],
    [{ kind: 'xen', ...unknown }, 'nothing'],
    [READ, 'answer'],
    [WRITE, 'maybe'],
    [TDX, 'maybe'],
    [{ kind: 'snp-req-certs', gpa: 0n, npages: 1n }, 'answer'],
    [HALT, 'nothing'],
  ];
  for (const [exit, wanted] of table)
    t.is(
      wants(exit),
      wanted,
      JSON.stringify(exit, (_, value: unknown) => (typeof value === 'bigint' ? `${value}n` : value)),
    );
});
