import { fixture } from '../helpers/child.ts';
import { x86 as test } from '../helpers/needs.ts';

test('vm.close: 1,000 VMs later the process holds the same fds, threads and mappings', async t => {
  t.timeout(600_000);
  const { code, stdout, stderr } = await fixture('many-vms', { args: ['1000'] });
  t.is(code, 0, stderr);
  const { before, after }: { before: object; after: object } = JSON.parse(stdout);
  t.deepEqual(after, before);
});
