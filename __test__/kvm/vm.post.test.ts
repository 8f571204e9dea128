import { Kvm, Vm } from '../../ts/index.ts';
import { needs } from '../helpers/needs.ts';

const test = needs();

test('vm: posting a handle to another thread throws instead of sending an empty object', t => {
  using kvm = Kvm.open();
  using vm = Vm.create({ kvm });
  const slot = vm.memory.map({ gpa: 0, size: 4096 });
  for (const handle of [kvm, vm, vm.memory, vm.memory.promises, vm.bus, vm.capabilities, slot, vm.createVcpu()]) {
    const refused = {
      any: true,
      name: 'DataCloneError',
      message: /a handle .* belongs to the thread that made it/u,
    } as const;
    t.throws(() => structuredClone({ inside: [handle] }), refused, handle.constructor.name);
  }
});
