/** What the garbage collector takes; for programs run with `--expose-gc`. */

import { setTimeout } from 'node:timers/promises';

declare const gc: () => void;

/** Collects what nobody can reach. */
export async function collect(): Promise<void> {
  for (let turns = 0; turns < 5; turns += 1) {
    await setTimeout(10); // a WeakRef that was looked into in this turn would hold it
    gc();
  }
}

/** Whether it is collected in the end: references of the addon's come home by the event loop, one after the other. */
export async function isCollected(of: WeakRef<object>): Promise<boolean> {
  for (let turns = 0; turns < 50 && of.deref() !== undefined; turns += 1) await collect();
  return of.deref() === undefined;
}
