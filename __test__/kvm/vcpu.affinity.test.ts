import { readdirSync, readFileSync } from 'node:fs';
import { type ErrorCode, KiB, Vm, type VcpuOptions } from '../../ts/index.ts';
import { ENTRY, forever, machine, start, STOP, STOPPED } from '../helpers/guests.ts';
import { onKvm as test } from '../helpers/needs.ts';
import { throwsCode, wrong } from '../helpers/throws.ts';

/** A line of a thread's status in /proc. */
function field(task: string, name: string): string {
  const status = readFileSync(`/proc/self/task/${task}/status`, 'utf8');
  return new RegExp(`^${name}:\\s*(.*)$`, 'mu').exec(status)?.[1] ?? '';
}

/** Where the threads of that name may run. */
function threads(name: string): string[] {
  return readdirSync('/proc/self/task')
    .filter(task => nameOf(task) === name)
    .map(task => field(task, 'Cpus_allowed_list'));
}

function nameOf(task: string): string {
  try {
    return readFileSync(`/proc/self/task/${task}/comm`, 'utf8').trimEnd();
  } catch {
    return ''; // another thread, that has just ended
  }
}

/** Where this thread may run, as a list: `0-2,5`. */
const OWN = field(String(process.pid), 'Cpus_allowed_list');
const CPUS = OWN.split(',').flatMap(stretch => {
  const [first = 0, last = first] = stretch.split('-').map(Number);
  return Array.from({ length: last - first + 1 }, (_, index) => first + index);
});

/** A VM about to run a guest that ends at once. */
function vmWithCode(): Vm {
  const vm = Vm.create();
  vm.memory.map({ gpa: 0, size: 64 * KiB });
  vm.memory.write(ENTRY, Uint8Array.from(STOP));
  return vm;
}

// One at a time: threads of the whole process are looked at.
test.serial('vm.createVcpu: its thread has the name and the processors asked for, from its first run on', async t => {
  using vm = vmWithCode();
  const last = CPUS.at(-1) ?? 0;
  const options: readonly (readonly [VcpuOptions, string, string])[] = [
    [{ affinity: [last], name: 'on the last one' }, 'on the last one', String(last)],
    [{ affinity: [...CPUS, ...CPUS], name: 'gäste' }, 'gäste', OWN],
    [{ affinity: [last] }, 'kvm-vcpu2', String(last)],
    [{}, 'kvm-vcpu3', OWN],
  ];
  for (const [how, name, cpus] of options) {
    const vcpu = vm.createVcpu(how);
    start(vcpu);
    t.deepEqual(threads(name), []);
    t.deepEqual(await vcpu.run(), STOPPED);
    t.deepEqual(threads(name), [cpus]);
  }
});

test.serial('vcpu.runSync: runs on the thread that calls it, and where that does', t => {
  using vm = vmWithCode();
  const vcpu = vm.createVcpu({ affinity: CPUS.slice(0, 1), name: 'not started' });
  start(vcpu);
  t.deepEqual(vcpu.runSync({ timeoutMs: 60_000 }), STOPPED);
  t.deepEqual(threads('not started'), []);
  t.is(field(String(process.pid), 'Cpus_allowed_list'), OWN);
});

const WRONG: readonly (readonly [unknown, ErrorCode, RegExp])[] = [
  [{ affinity: [] }, 'ERR_INVALID_ARGUMENT', /at least one CPU/u],
  [{ affinity: 0 }, 'ERR_INVALID_ARGUMENT', /an array/u],
  [{ affinity: null }, 'ERR_INVALID_ARGUMENT', /an array/u],
  [{ affinity: '0' }, 'ERR_INVALID_ARGUMENT', /an array/u],
  [{ affinity: ['0'] }, 'ERR_INVALID_ARGUMENT', /affinity\[0\] must be a number/u],
  [{ affinity: [CPUS[0], 0n] }, 'ERR_INVALID_ARGUMENT', /affinity\[1\] must be a number/u],
  [{ affinity: Object.assign([], { 1: 0 }) }, 'ERR_INVALID_ARGUMENT', /affinity\[0\] must be a number/u],
  [{ affinity: [-1] }, 'ERR_OUT_OF_RANGE', /from 0 to 8191/u],
  [{ affinity: [0.5] }, 'ERR_OUT_OF_RANGE', /from 0 to 8191/u],
  [{ affinity: [Number.NaN] }, 'ERR_OUT_OF_RANGE', /from 0 to 8191/u],
  [{ affinity: [2 ** 32] }, 'ERR_OUT_OF_RANGE', /from 0 to 8191/u],
  [{ affinity: [CPUS[0], 8191] }, 'ERR_INVALID_ARGUMENT', /CPU 8191 is not one .* those are \d/u],
  [{ name: '' }, 'ERR_INVALID_ARGUMENT', /1 to 15 bytes/u],
  [{ name: 'sixteen bytes...' }, 'ERR_INVALID_ARGUMENT', /1 to 15 bytes/u],
  [{ name: 'äöüäöüäö' }, 'ERR_INVALID_ARGUMENT', /1 to 15 bytes/u],
  [{ name: 'a\0b' }, 'ERR_INVALID_ARGUMENT', /without NUL/u],
  [{ name: 7 }, 'ERR_INVALID_ARGUMENT', /a string/u],
  [{ name: null }, 'ERR_INVALID_ARGUMENT', /a string/u],
];

test('vm.createVcpu: a name or processor that cannot be had is refused, and costs no id', t => {
  using vm = Vm.create();
  for (const [how, code, message] of WRONG) {
    t.regex(throwsCode(t, code, () => vm.createVcpu(wrong(how)))?.message ?? '', message);
  }
  t.is(vm.createVcpu({ affinity: CPUS }).id, 0);
});

test('vm.createVcpu: a guest on one processor with the program that drives it gets on', async t => {
  using guest = machine(forever(STOP));
  const vcpu = guest.vm.createVcpu({ affinity: CPUS.slice(0, 1) });
  start(vcpu);
  for (let round = 0; round < 50; round += 1) t.deepEqual(await vcpu.run(), STOPPED);
});
