import test, { type ExecutionContext } from 'ava';
import { statSync } from 'node:fs';
import { getuid } from 'node:process';
import { KiB, Vm } from '../../ts/index.ts';
import { BAD_INPUT } from '../helpers/bad-input.ts';
import { type Ended, fixture } from '../helpers/child.ts';
import type { Held } from '../helpers/held.ts';
import { needs } from '../helpers/needs.ts';
import { scaled } from '../helpers/scale.ts';
import { throwsCode } from '../helpers/throws.ts';

const onKvm = needs();

for (const [what, code, act] of BAD_INPUT) {
  onKvm(`bad input: ${what} is ${code}, and changes nothing`, t => {
    using vm = Vm.create();
    const slot = vm.memory.map({ gpa: 0, size: 64 * KiB });
    const vcpu = vm.createVcpu();
    const before = vcpu.getRegisters();
    throwsCode(t, code, () => act(vm, vcpu));
    t.deepEqual(vm.memory.slots, [slot]);
    t.deepEqual(vcpu.getRegisters(), before);
    t.true(vm.memory.read(0, 64 * KiB).every(byte => byte === 0));
  });
}

onKvm(
  `bad input: ${scaled(200)} times all of it later the process holds the same fds, threads and mappings`,
  async t => {
    t.timeout(240_000);
    const { code, stdout, stderr } = await fixture('bad-input');
    t.is(code, 0, stderr);
    const { before, after }: Record<'before' | 'after', Held> = JSON.parse(stdout);
    t.deepEqual(after, before);
  },
);

onKvm('bad input: a method that lost its object is a TypeError, and no error of ours', t => {
  using vm = Vm.create();
  const vcpu = vm.createVcpu();
  const slot = vm.memory.map({ gpa: 0, size: 4 * KiB });
  for (const [object, method] of [
    [vm.memory, 'map'],
    [vm.memory, 'read'],
    [vm.memory, 'getUint8'],
    [vm.memory, 'change'],
    [vm.memory, 'search'],
    [vm.memory, 'addressSpace'],
    [vm.memory.promises, 'map'],
    [vm.memory.promises, 'read'],
    [slot, 'unmap'],
    [slot, 'view'],
    [slot, 'setReadonly'],
    [slot, 'setDirtyLog'],
    [vm, 'close'],
    [vm, 'createVcpu'],
    [vm, 'pause'],
    [vm, 'resume'],
    [vm.bus, 'unclaimed'],
    [vcpu, 'kick'],
    [vcpu, 'getRegisters'],
    [vcpu, 'close'],
  ] as const) {
    const lost: unknown = Reflect.get(object, method);
    if (typeof lost !== 'function') throw new Error(`there is no ${method}`);
    t.throws(() => Reflect.apply(lost, {}, [0, 1]), { instanceOf: TypeError }, method);
  }
});

/** For a user who may not open it. Only root can become one who may not. */
async function withoutPermission(t: ExecutionContext): Promise<void> {
  const { code, stdout, stderr }: Ended = await fixture('no-permission');
  t.is(code, 0, stderr);
  t.deepEqual(JSON.parse(stdout), [
    { code: 'ERR_KVM_UNAVAILABLE', errno: -13, errnoName: 'EACCES', syscall: 'open', remedy: true },
    { usable: false },
  ]);
}

const title = 'bad input: /dev/kvm without permission is ERR_KVM_UNAVAILABLE and says what to do';
const openToAll = ((statSync('/dev/kvm', { throwIfNoEntry: false })?.mode ?? 0) & 0o006) !== 0;
if (getuid?.() !== 0) test.skip(`${title} (needs root)`, withoutPermission);
else if (openToAll) test.skip(`${title} (needs a /dev/kvm closed to others)`, withoutPermission);
else onKvm(title, withoutPermission);
