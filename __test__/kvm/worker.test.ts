import { fixture } from '../helpers/child.ts';
import { STOPPED } from '../helpers/guests.ts';
import { onKvm as test } from '../helpers/needs.ts';

interface Held {
  readonly fds: number;
  readonly threads: number;
  readonly guests: number;
}

interface Report {
  readonly before: Held;
  readonly within: Held;
  readonly after: Held;
  readonly ended: string;
}

/** What the worker is at, by the name the fixture has for it, and how it ends. */
const WAYS: readonly (readonly [string, string, string])[] = [
  ['run', 'terminated while a run is pending', 'terminated'],
  ['buffer', 'terminated while a guest runs on its SharedArrayBuffer', 'terminated'],
  ['runSync', 'terminated within runSync', 'terminated'],
  ['handler', 'terminated while a handler is at work', 'terminated'],
  ['throws', 'ended by an exception in a handler', 'from the handler'],
  ['finishes', 'that ends by itself, its VM still open', JSON.stringify(STOPPED.kind)],
];

for (const [way, what, end] of WAYS) {
  test(`worker: one ${what} leaves nothing: no fd, no thread, no mapping`, async t => {
    const { code, stdout, stderr } = await fixture('workers', { args: [way] });
    t.is(code, 0, stderr);
    const { before, within, after, ended }: Report = JSON.parse(stdout);
    t.deepEqual(after, before);
    t.is(ended, end);
    // What is counted was there to be counted.
    t.true(within.fds > before.fds && within.threads > before.threads, stdout);
    t.true(within.guests >= before.guests + 2, stdout);
  });
}
