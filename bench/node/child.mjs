// The protocol of bench/lib/child.mjs, for the scripts that are measured.
import { createInterface } from 'node:readline';

/**
 * Says that it is ready, then answers each `run COUNT` with what one operation took, until stdin ends. `batch(count)` does
 * that many and gives (a promise of) `{ ms, extra }`: the milliseconds they took, and a figure of its own for each, if it
 * has one. What it throws is told to the harness.
 */
export async function serve(batch) {
  console.log('ready');
  for await (const line of createInterface({ input: process.stdin })) {
    const count = Number(line.slice('run '.length));
    try {
      const { ms, extra } = await batch(count);
      console.log(`ns ${(ms * 1e6) / count}${extra === undefined ? '' : ` ${extra}`}`);
    } catch (error) {
      console.log(`failed ${error.message}`);
    }
  }
}

/** A batch of `operation`, for {@link serve}. */
export function repeated(operation) {
  return count => {
    const start = performance.now();
    for (let n = 0; n < count; n += 1) operation();
    return { ms: performance.now() - start };
  };
}
