// The lists of the kernel's selftests' cases are those of its source. Tier full: the source is 1.7 GB, and not everywhere.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PORTS, caseLines, readCases, sourceOf } from '../selftests/cases.mjs';

for (const name of Object.keys(PORTS)) {
  const source = sourceOf(name);
  const skip = source ? false : "the kernel's source is not in the cache (npm run lab -- selftests)";
  test(`${name}: the list of cases is that of the source`, { skip }, () => {
    const why = `it is of another source than ${source.version}: node scripts/extract-selftest-cases.mjs`;
    assert.deepEqual(readCases(name), caseLines(source.text), why);
  });
}
