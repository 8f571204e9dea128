/** What can be watched from outside: diagnostics channels, `NODE_DEBUG=typevisor`, and how objects print themselves. */

import { channel } from 'node:diagnostics_channel';
import { debuglog, inspect, type InspectOptions } from 'node:util';
import { TypevisorError } from './errors.ts';
import type { Exit } from './exit.ts';

/** What the channel `typevisor:vm` tells: a VM was made, or closed. `vm` is its number in this thread, from 1. */
export interface VmMessage {
  readonly event: 'create' | 'close';
  readonly vm: number;
}

/** What the channel `typevisor:exit` tells: this exit was handed to JavaScript, by a run or by settling. */
export interface ExitMessage {
  readonly vm: number;
  /** The vCPU's id. */
  readonly vcpu: number;
  readonly exit: Exit;
}

/**
 * What the channel `typevisor:ioctl` tells: KVM did this. VMs, vCPUs and memory slots are told of, by the kernel's own
 * name: `KVM_CREATE_VM`, `KVM_CREATE_VCPU`, `KVM_SET_USER_MEMORY_REGION` and the same with `2`.
 */
export interface IoctlMessage {
  readonly vm: number;
  readonly ioctl: string;
  /**
   * What was asked for, in bytes where it is an address or a size. A slot of size 0 was removed. `addressSpace` is there
   * where it is not 0, `dirtyLog` where it is on.
   */
  readonly arguments: Readonly<Record<string, number | boolean>>;
}

const VM = channel('typevisor:vm');
const EXIT = channel('typevisor:exit');
const IOCTL = channel('typevisor:ioctl');
const log = debuglog('typevisor');

/** A VM was made or closed. */
export function tellVm(event: VmMessage['event'], vm: number): void {
  if (VM.hasSubscribers) VM.publish(Object.freeze<VmMessage>({ event, vm }));
  if (log.enabled) log('vm %d: %s', vm, event);
}

/** An exit reached JavaScript. Gives it back. Called for each: unwatched, it costs two flags. */
export function tellExit(vm: number, vcpu: number, exit: Exit): Exit {
  if (EXIT.hasSubscribers) EXIT.publish(Object.freeze<ExitMessage>({ vm, vcpu, exit }));
  if (log.enabled) log('vm %d vcpu %d: exit %s', vm, vcpu, inspect(exit, ONE_LINE));
  return exit;
}

/** Whether anybody wants to hear of {@link tellIoctl}: for callers who have to ask for what they tell. */
export function ioctlsAreWatched(): boolean {
  return IOCTL.hasSubscribers || log.enabled;
}

/** KVM did what it was asked for. */
export function tellIoctl(vm: number, ioctl: string, given: IoctlMessage['arguments']): void {
  if (IOCTL.hasSubscribers) IOCTL.publish(Object.freeze<IoctlMessage>({ vm, ioctl, arguments: Object.freeze(given) }));
  if (log.enabled) log('vm %d: %s %s', vm, ioctl, inspect(given, ONE_LINE));
}

const ONE_LINE: InspectOptions = { breakLength: Number.POSITIVE_INFINITY, compact: 3, maxArrayLength: 16 };

/**
 * Says how the objects of a class print: its name and a few fields, `undefined` ones left out. Printing never throws, so
 * they can be logged in any state: where `fields` throws, {@link orState} stands for them.
 */
export function printable<T>(
  made: { readonly name: string; readonly prototype: T },
  fields: (self: T) => object,
): void {
  // `depth` is what is left of it, `options.depth` what there was at first.
  function print(this: T, depth: number | null, options: InspectOptions): string {
    if (depth !== null && depth < 0) return `[${made.name}]`;
    const shown = Object.entries(orState(() => fields(this))).filter(([, value]) => value !== undefined);
    return `${made.name} ${inspect(Object.fromEntries(shown), { ...options, depth })}`;
  }
  Object.defineProperty(made.prototype, inspect.custom, { value: print, configurable: true, writable: true });
}

/** What `fields` gives; where it throws, why: `poisoned`, `forked`, or `closed` as most likely. */
export function orState(fields: () => object): object {
  try {
    return fields();
  } catch (error) {
    const code = error instanceof TypevisorError ? error.code : undefined;
    if (code === 'ERR_POISONED') return { poisoned: true };
    return code === 'ERR_FORKED' ? { forked: true } : { closed: true };
  }
}

/** An address, printed in hexadecimal. */
export function hex(value: number): object {
  return { [inspect.custom]: () => `0x${value.toString(16)}` };
}
