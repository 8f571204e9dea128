/** What a program searches guest memory for: checked, and as the addon takes it. */

import { byteArray, bytes, integer, options } from './check.ts';

/** How to search. */
export interface SearchOptions {
  /** At most so many places, the lowest, from 1 to 1,048,576. Default 1,000. */
  readonly limit?: number | undefined;
}

/** The same with everything said. */
export interface SearchRequest {
  readonly gpa: number;
  readonly size: number;
  readonly pattern: Uint8Array;
  readonly limit: number;
}

const LIMIT_MAX = 2 ** 20;
const DEFAULT_LIMIT = 1000;

/**
 * Checks what a program wants found.
 *
 * @throws {TypevisorError} `ERR_INVALID_ARGUMENT`, `ERR_OUT_OF_RANGE`.
 */
export function searchRequest(gpa: number, size: number, pattern: Uint8Array, how?: SearchOptions): SearchRequest {
  const { limit = DEFAULT_LIMIT } = options<SearchOptions>(how, 'search options', ['limit']);
  return {
    gpa: bytes(gpa, 'gpa'),
    size: bytes(size, 'size'),
    limit: integer(limit, 'limit', 1, LIMIT_MAX),
    pattern: byteArray(pattern, 'pattern'),
  };
}
