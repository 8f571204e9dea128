import { KiB, Vm } from '../../ts/index.ts';
import { BAD_PROMISES } from '../helpers/bad-input.ts';
import { onKvm as test } from '../helpers/needs.ts';
import { rejectsCode } from '../helpers/throws.ts';

for (const [what, code, act] of BAD_PROMISES) {
  test(`bad input: ${what} is ${code} of a promise, and changes nothing`, async t => {
    using vm = Vm.create();
    const slot = vm.memory.map({ gpa: 0, size: 64 * KiB });
    await rejectsCode(t, code, act(vm));
    t.deepEqual(vm.memory.slots, [slot]);
    t.true(vm.memory.read(0, 64 * KiB).every(byte => byte === 0));
  });
}
