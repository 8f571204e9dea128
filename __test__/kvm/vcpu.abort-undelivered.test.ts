import { getEventListeners } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { INCREMENT, machine, MARK, mark, put, start, STOP, STOPPED, told } from '../helpers/guests.ts';
import { onKvm as test } from '../helpers/needs.ts';

// Alone in its file: no other vCPU's thread is to be seen.
test('vcpu.run: an abort between the exit and its delivery comes too late: the exit is delivered', async t => {
  using guest = machine(INCREMENT, mark(), put(0x80), STOP);
  const vcpu = guest.vm.createVcpu({ id: 7 });
  start(vcpu);
  const { signal, abort } = controller();
  const running = vcpu.run({ signal });
  // While this thread does not let the event loop turn, nothing is delivered. The guest has come to its last instruction,
  // and then its thread has nothing to do any more: the exit is there.
  while (guest.vm.memory.getUint8(MARK) === 0);
  while (!sleeps('kvm-vcpu7'));
  abort();
  t.deepEqual(await running, told(0x80, 1));
  t.is(getEventListeners(signal, 'abort').length, 0);
  t.deepEqual(await vcpu.run(), STOPPED, 'the next run is not touched');
});

/** Whether the thread of that name waits for something. proc(5): the state comes after the name in parentheses. */
function sleeps(name: string): boolean {
  return readdirSync('/proc/self/task').some(task => {
    const stat = readFileSync(`/proc/self/task/${task}/stat`, 'utf8');
    return stat.includes(`${name}) S`);
  });
}

function controller(): { signal: AbortSignal; abort: () => void } {
  const made = new AbortController();
  return { signal: made.signal, abort: () => made.abort(new Error('too late')) };
}
