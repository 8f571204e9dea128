import { fixture } from '../helpers/child.ts';
import { onKvm as test } from '../helpers/needs.ts';

interface Held {
  readonly fds: number;
  readonly threads: number;
}

test('vm: one that nobody closes goes with its last handle, threads and fds and all', async t => {
  const { code, stdout, stderr } = await fixture('forgotten', { nodeArgs: ['--expose-gc'] });
  t.is(code, 0, stderr);
  const { before, open, after }: Record<'before' | 'open' | 'after', Held> = JSON.parse(stdout);
  t.true(open.fds > before.fds && open.threads > before.threads, stdout);
  t.deepEqual(after, before);
});
