/** What every class around a native object shares: constructed only by us, and never posted to another thread. */

import { TypevisorError } from './errors.ts';

/** Held by the files of the facade alone: whoever has it may construct. */
export const KEY: unique symbol = Symbol('typevisor');

/** What the clone algorithm meets in a handle, and names where it refuses it: a symbol cannot be cloned. */
const NOT_CLONEABLE: symbol = Symbol('a handle of Typevisor’s belongs to the thread that made it, and');

/**
 * First line of every constructor. A handle belongs to the environment that made it: cloned, it would arrive as an
 * empty object, so posting one throws `DataCloneError` instead. (`markAsUncloneable` of Node 22.10 does that as well, but
 * says no more than "unsupported type".)
 *
 * @throws {TypevisorError} `ERR_INVALID_ARGUMENT` where somebody else calls the constructor.
 */
export function guard(handle: object & { notCloneable?: symbol }, key: symbol, factory: string): void {
  if (key !== KEY) {
    throw new TypevisorError(
      'ERR_INVALID_ARGUMENT',
      `${handle.constructor.name} has no public constructor: use ${factory}`,
    );
  }
  handle.notCloneable = NOT_CLONEABLE; // not by defineProperty: it is slow, and slots are mapped by the thousand
}
