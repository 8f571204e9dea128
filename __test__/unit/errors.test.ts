import { readFileSync } from 'node:fs';
import test from 'ava';
import { call, ERROR_CODES, TypevisorError, unwrap } from '../../ts/errors.ts';
import { native } from '../../ts/loader.ts';
import type { Failure } from '../../ts/native.ts';
import { path } from '../helpers/child.ts';
import { throwsCode } from '../helpers/throws.ts';

const FAILURE: Failure = {
  failed: true,
  code: 'ERR_IOCTL',
  message: 'KVM_CREATE_VM failed: Invalid argument',
  errno: -22,
  syscall: 'KVM_CREATE_VM',
  capability: null,
  since: null,
};

test('unwrap: a failure becomes an error that knows all the failure knew', t => {
  const error = throwsCode(t, 'ERR_IOCTL', () => unwrap(FAILURE));
  t.like(error, { message: FAILURE.message, errno: -22, errnoName: 'EINVAL', syscall: 'KVM_CREATE_VM' });
  t.false(error !== undefined && ('capability' in error || 'since' in error || 'cause' in error));
});

test('unwrap: a missing capability is named, with the kernel that has it', t => {
  const failure = { ...FAILURE, code: 'ERR_CAPABILITY_MISSING', errno: null, syscall: null };
  const error = throwsCode(t, 'ERR_CAPABILITY_MISSING', () => unwrap({ ...failure, capability: 'x', since: '6.8' }));
  t.like(error, { capability: 'x', since: '6.8' });
  t.false(error !== undefined && ('errno' in error || 'errnoName' in error || 'syscall' in error));
});

test('unwrap: whatever is no failure comes back as it is', t => {
  for (const value of [null, 0, '', [], { failed: false }, { kind: 'hlt' }]) t.is(unwrap<unknown>(value), value);
});

test('call: what the addon throws is ERR_INTERNAL, with its message and cause', t => {
  const cause = new Error('index out of bounds');
  const error = throwsCode(t, 'ERR_INTERNAL', () =>
    call(() => {
      throw cause;
    }),
  );
  t.is(error?.cause, cause);
  t.regex(error?.message ?? '', /index out of bounds/u);
});

test('TypevisorError: is an Error by name, stack and cause', t => {
  const error = new TypevisorError('ERR_LOAD', 'why', { cause: 7 });
  t.true(error instanceof Error);
  t.is(error.name, 'TypevisorError');
  t.is(String(error), 'TypevisorError: why');
  t.is(error.cause, 7);
  t.deepEqual(Object.keys(error), ['code']);
});

test('TypevisorError: an errno that has no name keeps its number', t => {
  t.is(new TypevisorError('ERR_IO', '', { errno: -4094 }).errnoName, 'errno 4094');
  t.is(new TypevisorError('ERR_IO', '', { errno: 5 }).errnoName, 'errno -5');
});

test('ErrorCode: each code is documented, once, in the order of the list', t => {
  const source = readFileSync(path('ts/errors.ts'), 'utf8');
  t.deepEqual(
    Array.from(source.matchAll(/^ \* - `(ERR_\w+)`: \S/gmu), match => match[1]),
    [...ERROR_CODES],
  );
});

test('ErrorCode: holds every code that the core can give', t => {
  const known: readonly string[] = ERROR_CODES;
  t.deepEqual(
    native()
      .errorCodes()
      .filter(code => !known.includes(code)),
    [],
  );
});
