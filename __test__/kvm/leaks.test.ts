import { fixture } from '../helpers/child.ts';
import { x86 as test } from '../helpers/needs.ts';

interface Held {
  readonly fds: number;
  readonly threads: number;
  readonly kvm: number;
}

test('vm.close: 1,000 VMs later the process holds the same fds, threads and mappings', async t => {
  t.timeout(600_000);
  const { code, stdout, stderr } = await fixture('many-vms', { args: ['1000'] });
  t.is(code, 0, stderr);
  const { before, after, open }: Record<'before' | 'after' | 'open', Held> = JSON.parse(stdout);
  t.deepEqual(after, before);
  // What is counted is there to be counted.
  t.true(open.fds > after.fds && open.threads > after.threads && open.kvm > after.kvm, stdout);
});
