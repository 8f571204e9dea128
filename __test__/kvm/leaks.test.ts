import { fixture } from '../helpers/child.ts';
import type { Held } from '../helpers/held.ts';
import { x86 as test } from '../helpers/needs.ts';

test('vm.close: 1,000 VMs later the process holds the same fds, threads and mappings', async t => {
  t.timeout(600_000);
  const { code, stdout, stderr } = await fixture('many-vms', { args: ['1000'] });
  t.is(code, 0, stderr);
  const { before, after, open }: Record<'before' | 'after' | 'open', Held> = JSON.parse(stdout);
  t.deepEqual(after, before);
  // What is counted is there to be counted.
  t.true(open.fds > after.fds && open.threads > after.threads && open.kvm > after.kvm, stdout);
});

test('vcpu.runSync: 50,000 runs with console output, and no turn of the event loop, leave one wake-up behind', async t => {
  const { code, stdout, stderr } = await fixture('sync-wakes');
  t.is(code, 0, stderr);
  t.deepEqual(JSON.parse(stdout), { bytes: 50_000, early: 0, wakes: 1 });
});
