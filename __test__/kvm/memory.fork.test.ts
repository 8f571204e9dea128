import { fixture } from '../helpers/child.ts';
import { onKvm as test } from '../helpers/needs.ts';

// Node's spawn is a real fork: whatever is not kept from it is copied, or written to by two.
test('memory: four workers that start programs all the time change no byte of it, and the guest runs on', async t => {
  t.timeout(300_000);
  const { code, stdout, stderr } = await fixture('fork', {});
  t.deepEqual([code, stderr], [0, '']);
  t.deepEqual(JSON.parse(stdout), { started: true, intact: true, exit: 'intr', ran: true });
});
