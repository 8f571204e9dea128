import { channel, subscribe, unsubscribe } from 'node:diagnostics_channel';
import { inspect } from 'node:util';
import test from 'ava';
import { type Exit, TypevisorError } from '../../ts/index.ts';
import { hex, ioctlsAreWatched, printable, tellExit, tellIoctl, tellVm } from '../../ts/observe.ts';

function touched(): never {
  throw new Error('touched');
}

test('observe: what nobody watches is not even looked at', t => {
  const handler = { get: touched, has: touched, ownKeys: touched, getOwnPropertyDescriptor: touched };
  const exit = new Proxy<Exit>({ kind: 'hlt' }, handler);
  t.is(tellExit(1, 0, exit), exit);
  tellIoctl(1, 'KVM_CREATE_VM', new Proxy({}, handler));
  t.false(ioctlsAreWatched());
});

test('observe: subscribers get plain frozen data that can be posted', t => {
  const seen: unknown[] = [];
  const listen = (message: unknown): void => void seen.push(message);
  const names = ['typevisor:vm', 'typevisor:exit', 'typevisor:ioctl'] as const;
  for (const name of names) subscribe(name, listen);
  tellVm('create', 7);
  tellExit(7, 1, { kind: 'hlt' });
  tellIoctl(7, 'KVM_CREATE_VCPU', { id: 1 });
  t.true(ioctlsAreWatched());
  for (const name of names) unsubscribe(name, listen);
  tellVm('close', 7);
  t.deepEqual(seen, [
    { event: 'create', vm: 7 },
    { vm: 7, vcpu: 1, exit: { kind: 'hlt' } },
    { vm: 7, ioctl: 'KVM_CREATE_VCPU', arguments: { id: 1 } },
  ]);
  t.true(seen.every(message => Object.isFrozen(message)));
  t.deepEqual(structuredClone(seen), seen);
  t.true(names.every(name => !channel(name).hasSubscribers));
});

class Box {
  readonly #content: object;
  constructor(content: object) {
    this.#content = content;
  }
  static {
    printable(this, box => {
      if ('error' in box.#content) throw box.#content.error;
      return box.#content;
    });
  }
}

test('observe: a class prints its name and fields, absent ones left out', t => {
  t.is(inspect(new Box({ a: 1, b: undefined, gpa: hex(0x1000) })), 'Box { a: 1, gpa: 0x1000 }');
});

test('observe: printing never throws, and says why there is nothing to say', t => {
  for (const [code, printed] of [
    ['ERR_CLOSED', 'Box { closed: true }'],
    ['ERR_POISONED', 'Box { poisoned: true }'],
    ['ERR_FORKED', 'Box { forked: true }'],
  ] as const) {
    t.is(inspect(new Box({ error: new TypevisorError(code, 'refused') })), printed);
  }
  t.is(inspect(new Box({ error: new TypeError('a bug') })), 'Box { closed: true }');
  t.notThrows(() => inspect(Box.prototype));
});

test('observe: printing obeys the depth it is given', t => {
  const nested = new Box({ inner: new Box({ inner: new Box({ a: 1 }) }) });
  t.is(inspect(nested, { depth: 0 }), 'Box { inner: [Box] }');
  t.is(inspect(nested, { depth: 1 }), 'Box { inner: Box { inner: [Box] } }');
  t.is(inspect([nested], { depth: 1 }), '[ Box { inner: [Box] } ]');
  t.is(inspect(nested, { depth: null }), 'Box { inner: Box { inner: Box { a: 1 } } }');
});
