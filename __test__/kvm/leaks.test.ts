import { fixture } from '../helpers/child.ts';
import type { Held } from '../helpers/held.ts';
import { onKvm as test, x86 } from '../helpers/needs.ts';
import { inWords, scaled } from '../helpers/scale.ts';

const VMS = scaled(1000);
const RUNS = scaled(50_000);

test(`vm.close: ${inWords(VMS)} VMs later the process holds the same fds, threads and mappings`, async t => {
  t.timeout(600_000);
  const { code, stdout, stderr } = await fixture('many-vms', { args: [String(VMS)] });
  t.is(code, 0, stderr);
  const { before, after, open }: Record<'before' | 'after' | 'open', Held> = JSON.parse(stdout);
  t.deepEqual(after, before);
  // What is counted is there to be counted.
  t.true(open.fds > after.fds && open.threads > after.threads && open.kvm > after.kvm, stdout);
});

x86(
  `vcpu.runSync: ${inWords(RUNS)} runs with console output, and no turn of the event loop, leave one wake-up behind`,
  async t => {
    const { code, stdout, stderr } = await fixture('sync-wakes');
    t.is(code, 0, stderr);
    t.deepEqual(JSON.parse(stdout), { bytes: RUNS, early: 0, wakes: 1 });
  },
);
