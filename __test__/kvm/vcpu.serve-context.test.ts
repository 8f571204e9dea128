import { AsyncLocalStorage } from 'node:async_hooks';
import { handlers, machine, printer } from '../helpers/guests.ts';
import { onKvm as test } from '../helpers/needs.ts';

test('vcpu.serve: handlers keep the AsyncLocalStorage context they were registered in', async t => {
  using guest = machine(printer(0x80, 'abc'));
  const storage = new AsyncLocalStorage<string>();
  const seen: (string | undefined)[] = [];
  const serving = storage.run('registered', () =>
    guest.vcpu.serve(
      handlers({
        access: async () => {
          seen.push(storage.getStore());
          storage.enterWith('left by a handler');
          await Promise.resolve();
        },
        stop: () => {
          seen.push(storage.getStore());
          return 'stop';
        },
      }),
    ),
  );
  await storage.run('elsewhere', () => serving);
  t.deepEqual(seen, ['registered', 'registered', 'registered', 'registered']);
});
