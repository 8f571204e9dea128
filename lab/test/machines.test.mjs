// Which machine a name means.
import assert from 'node:assert/strict';
import test from 'node:test';
import { MACHINES, byId, choose, defaultMachine } from '../machines.mjs';

const idOf = (values, env = {}, host = 'x86_64') => choose(values, env, host).id;

test('there are nine machines with names of their own', () => {
  assert.equal(MACHINES.length, 9);
  assert.equal(new Set(MACHINES.map(({ id }) => id)).size, 9);
});

test('a kernel alone is of this processor, with --arch of that one', () => {
  assert.equal(idOf({ kernel: '5.10' }), '5.10');
  assert.equal(idOf({ kernel: '5.10' }, {}, 'aarch64'), '5.10', 'an id is an id everywhere');
  assert.equal(idOf({ kernel: '5.10', arch: 'aarch64' }), 'aarch64-5.10');
  assert.equal(idOf({ kernel: 'aarch64-newest' }), 'aarch64-newest');
  assert.equal(idOf({ kernel: 'aarch64-6.1', arch: 'aarch64' }), 'aarch64-6.1');
});

test('without a kernel it is the one with most features', () => {
  assert.equal(idOf({}), 'lab');
  assert.equal(idOf({}, { TYPEVISOR_LAB: 'stock' }), 'newest');
  assert.equal(idOf({ arch: 'aarch64' }), 'aarch64-newest');
  assert.equal(idOf({}, {}, 'aarch64'), 'aarch64-newest');
  assert.equal(defaultMachine({}, 'x86_64').id, 'lab');
});

test('an unknown machine or architecture is refused, and all that there are are named', () => {
  assert.throws(() => byId('4.19'), { message: /no such machine: 4\.19 \(there are: lab, 5\.10, /, exitCode: 2 });
  assert.throws(() => choose({ kernel: 'aarch64-6.1', arch: 'x86_64' }), {
    message: 'lab: machine aarch64-6.1 is aarch64, and --arch says x86_64',
    exitCode: 2,
  });
  assert.throws(() => choose({ kernel: 'lab', arch: 'aarch64' }), /no such machine: aarch64-lab/);
  assert.throws(() => choose({ arch: 'riscv64' }), { message: /no such architecture: riscv64/, exitCode: 2 });
});
