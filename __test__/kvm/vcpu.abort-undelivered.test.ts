import { getEventListeners } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { ENTRY, machine } from '../helpers/guests.ts';
import { x86 as test } from '../helpers/needs.ts';

const MARK = 0x2000;
/** inc al; mov [MARK], al; out 0x80, al; hlt */
const CODE: readonly number[] = [0xfe, 0xc0, 0xa2, 0x00, 0x20, 0xe6, 0x80, 0xf4];

// Alone in its file: no other vCPU's thread is to be seen.
test('vcpu.run: an abort between the exit and its delivery comes too late: the exit is delivered', async t => {
  using guest = machine(CODE);
  const vcpu = guest.vm.createVcpu({ id: 7 });
  vcpu.boot({ mode: 'real', entry: ENTRY });
  const { signal, abort } = controller();
  const running = vcpu.run({ signal });
  // While this thread does not let the event loop turn, nothing is delivered. The guest has come to its last instruction,
  // and then its thread has nothing to do any more: the exit is there.
  while (guest.vm.memory.getUint8(MARK) === 0);
  while (!sleeps('kvm-vcpu7'));
  abort();
  t.deepEqual(await running, {
    kind: 'io',
    direction: 'out',
    port: 0x80,
    size: 1,
    count: 1,
    data: Uint8Array.of(1),
  });
  t.is(getEventListeners(signal, 'abort').length, 0);
  t.deepEqual(await vcpu.run(), { kind: 'hlt' }, 'the next run is not touched');
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
