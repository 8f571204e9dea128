// The protocol of bench/lib/child.mjs, for the scripts that are measured.
import { createInterface } from 'node:readline';

/**
 * Says that it is ready, then answers each `run COUNT` with what one operation took, until stdin ends. `batch(count)` does
 * that many and gives (a promise of) `{ ns, exits, p99 }`: nanoseconds and, where they are counted, exits of one operation,
 * and the nanoseconds that 99 of 100 do not exceed, where those are looked for. What it throws is told to the harness.
 */
export async function serve(batch) {
  console.log('ready');
  for await (const line of createInterface({ input: process.stdin })) {
    const count = Number(line.slice('run '.length));
    try {
      const { ns, ...others } = await batch(count);
      const named = Object.entries(others).filter(([, value]) => value !== undefined);
      console.log([`ns ${ns}`, ...named.map(([name, value]) => `${name}=${value}`)].join(' '));
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
    return { ns: ((performance.now() - start) * 1e6) / count };
  };
}
