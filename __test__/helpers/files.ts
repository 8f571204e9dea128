/** A folder of files for tests of memory that is a file; ends with the test file. */

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';

/** A file, with what is in it. */
export type MakeFile = (content: Uint8Array) => string;

/** Gives a function that makes a file and gives its path, and the folder. */
export function files(): { make: MakeFile; folder: string } {
  const folder = mkdtempSync(join(tmpdir(), 'typevisor-memory-'));
  test.after.always(() => rmSync(folder, { recursive: true }));
  let count = 0;
  return {
    folder,
    make: content => {
      const file = join(folder, `file-${++count}`);
      writeFileSync(file, content);
      return file;
    },
  };
}

/** So many pages, the first full of 1, the next of 2, and so on. */
export function pages(count: number): Uint8Array {
  return Uint8Array.from({ length: count * 4096 }, (_, at) => 1 + Math.floor(at / 4096));
}
