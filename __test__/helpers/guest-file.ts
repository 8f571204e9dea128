/** Guests as files, for `typevisor run`: in a folder that ends with the test file. */

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';

/** Gives a function that writes bytes to a file and gives its path. */
export function guestFiles(): (...bytes: readonly number[]) => string {
  const folder = mkdtempSync(join(tmpdir(), 'typevisor-guests-'));
  test.after.always(() => rmSync(folder, { recursive: true }));
  let count = 0;
  return (...bytes) => {
    const file = join(folder, `guest-${++count}.bin`);
    writeFileSync(file, Uint8Array.from(bytes));
    return file;
  };
}
