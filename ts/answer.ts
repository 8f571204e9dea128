/** Which exits are answered, and with what. The sizes are the core's to check. */

import { types } from 'node:util';
import { integer, invalid, quiet, uint64 } from './check.ts';
import type { Exit } from './exit.ts';

/** A value for an exit that wants one: a number, little-endian in as many bytes as it wants, or all of them as bytes. */
export type Answer = number | bigint | Uint8Array;

/** Exits that want an answer: the guest does not run on without. */
type Asking = Extract<
  Exit,
  | { readonly direction: 'in' | 'read' }
  | { readonly kind: 'hypercall'; readonly arch: 'x86_64' }
  | { readonly kind: 'hyperv'; readonly type: 'hcall' | 'syndbg' }
  | { readonly kind: 'xen'; readonly type: 'hcall' }
  | { readonly kind: 'rdmsr' | 'snp-req-certs' }
>;

/** Kinds of which there are exits that want none. */
type Telling = Exclude<Exit, Asking>['kind'];

/** What answers an exit of that kind. */
type AnswerOf<Kind> =
  | (Kind extends Asking['kind'] | 'tdx' ? Answer : never)
  | (Kind extends 'rdmsr' | 'wrmsr' ? 'fault' : never);

/** What a handler of that kind gives back. Nothing, for an exit that needs no answer: go on. */
export type Reply<Kind> = AnswerOf<Kind> | (Kind extends Telling ? 'stop' | undefined | void : never);

/** Whether the guest waits for an answer; whether there may be one all the same. */
export function wants(exit: Exit): 'answer' | 'maybe' | 'nothing' {
  switch (exit.kind) {
    case 'io':
      return exit.direction === 'in' ? 'answer' : 'nothing';
    case 'mmio':
      return exit.direction === 'read' ? 'answer' : 'nothing';
    case 'hypercall':
      return exit.arch === 'x86_64' ? 'answer' : 'nothing';
    case 'hyperv':
      return exit.type === 'hcall' || exit.type === 'syndbg' ? 'answer' : 'nothing';
    case 'xen':
      return exit.type === 'hcall' ? 'answer' : 'nothing';
    case 'rdmsr':
    case 'snp-req-certs':
      return 'answer';
    case 'wrmsr':
    case 'tdx':
      return 'maybe';
    default:
      return 'nothing';
  }
}

/** Whether it takes `'fault'` as an answer. */
export function takesFault({ kind }: Exit): boolean {
  return kind === 'rdmsr' || kind === 'wrmsr';
}

/** Whether it can be the value of an answer; whether it fits is asked later. */
export function isAnswer(value: unknown): value is Answer {
  return typeof value === 'number' || typeof value === 'bigint' || types.isUint8Array(value);
}

/** What the addon is given: a number, or quiet bytes. */
export function answerRequest(value: unknown): bigint | Uint8Array {
  if (typeof value === 'number') return BigInt(integer(value, 'value', 0, Number.MAX_SAFE_INTEGER));
  if (typeof value === 'bigint') return uint64(value, 'value');
  if (types.isUint8Array(value)) return quiet(value);
  throw invalid('value', "a number, a bigint or a Uint8Array, or 'fault' for a model-specific register", value);
}
