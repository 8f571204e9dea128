/** What every class around a native object shares: constructed only by us, and never posted to another thread. */

import * as workerThreads from 'node:worker_threads';
import { TypevisorError } from './errors.ts';

/** Held by the files of the facade alone: whoever has it may construct. */
export const KEY: unique symbol = Symbol('typevisor');

/**
 * First line of every constructor. A handle belongs to the environment that made it: cloned, it would arrive as an
 * empty object, so posting one throws `DataCloneError` instead.
 *
 * @throws {TypevisorError} `ERR_INVALID_ARGUMENT` where somebody else calls the constructor.
 */
export function guard(handle: object, key: symbol, factory: string): void {
  if (key !== KEY) {
    throw new TypevisorError(
      'ERR_INVALID_ARGUMENT',
      `${handle.constructor.name} has no public constructor: use ${factory}`,
    );
  }
  refuseCloning(handle);
}

/** `markAsUncloneable` came with Node 22.10. Before it, an enumerable function is what the clone algorithm refuses. */
const mark: unknown = 'markAsUncloneable' in workerThreads ? workerThreads.markAsUncloneable : undefined;

function refuseCloning(handle: object): void {
  if (typeof mark === 'function') mark(handle);
  else Object.defineProperty(handle, 'notCloneable', NOT_CLONEABLE);
}

const NOT_CLONEABLE: PropertyDescriptor = { enumerable: true, value: refuseCloning };
