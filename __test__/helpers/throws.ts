/** Assertions on `TypevisorError`. */

import type { ExecutionContext } from 'ava';
import { type ErrorCode, TypevisorError } from '../../ts/index.ts';

/** `act` throws a `TypevisorError` with that code; gives it. */
export function throwsCode(t: ExecutionContext, code: ErrorCode, act: () => unknown): TypevisorError | undefined {
  const error = t.throws(act, { instanceOf: TypevisorError });
  t.is(error?.code, code, error?.message);
  return error;
}

/** `promise` rejects with a `TypevisorError` with that code; gives it. */
export async function rejectsCode(
  t: ExecutionContext,
  code: ErrorCode,
  promise: Promise<unknown>,
): Promise<TypevisorError | undefined> {
  const error = await t.throwsAsync(promise, { instanceOf: TypevisorError });
  t.is(error?.code, code, error?.message);
  return error;
}

/** What JavaScript lets through and TypeScript does not: a value for a parameter of another type. */
export function wrong(value: unknown): never {
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- the point of it
  return value as never;
}
