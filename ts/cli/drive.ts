/** Drives a vCPU to its end on a machine with nothing behind its ports and addresses but what stands on the bus. */

import type { Exit, IoExit, MmioExit } from '../exit.ts';
import type { Vcpu } from '../vcpu.ts';
import type { Statistics } from './statistics.ts';

/** How a guest ended. */
export type Ending =
  | { readonly how: 'halted' | 'kicked' }
  /** It wrote this to the exit port. */
  | { readonly how: 'exited'; readonly code: number }
  /** An exit after which it cannot go on. */
  | { readonly how: 'stopped'; readonly exit: Exit }
  | { readonly how: 'aborted' };

/** How to drive. */
export interface DriveOptions {
  /** Stops it; its `reason` is the caller's to know. */
  readonly signal: AbortSignal;
  /** A write here ends the guest. */
  readonly exitPort?: number;
  readonly statistics?: Statistics;
}

/** Runs until the guest ends. Reads that nobody on the bus answers give ones, and such writes go nowhere. */
export async function drive(vcpu: Vcpu, { signal, exitPort, statistics }: DriveOptions): Promise<Ending> {
  for (;;) {
    const entered = performance.now();
    let exit: Exit;
    try {
      exit = await vcpu.run({ signal });
    } catch (error) {
      if (!signal.aborted || error !== signal.reason) throw error;
      statistics?.add('intr', performance.now() - entered, 0); // what the abort's kick made of the entry
      return { how: 'aborted' };
    }
    const left = performance.now();
    const ending = handle(exit, vcpu, exitPort);
    statistics?.add(exit.kind, left - entered, performance.now() - left);
    if (ending !== undefined) return ending;
  }
}

function handle(exit: Exit, vcpu: Vcpu, exitPort: number | undefined): Ending | undefined {
  switch (exit.kind) {
    case 'io':
      return exit.direction === 'out' && exit.port === exitPort
        ? { how: 'exited', code: littleEndian(exit.data.subarray(0, exit.size)) }
        : answerWithOnes(exit, vcpu);
    case 'mmio':
      return answerWithOnes(exit, vcpu);
    case 'hlt':
      return { how: 'halted' };
    case 'system-event': // power-off ends a guest as its hlt does; a reset or a crash is no success
      return exit.event === 'shutdown' ? { how: 'halted' } : { how: 'stopped', exit };
    case 'intr':
      return { how: 'kicked' };
    default:
      return { how: 'stopped', exit }; // also what a later version may bring
  }
}

function answerWithOnes(exit: IoExit | MmioExit, vcpu: Vcpu): undefined {
  if (exit.direction !== 'in' && exit.direction !== 'read') return;
  const size = exit.kind === 'io' ? exit.size * exit.count : exit.size;
  vcpu.answer(new Uint8Array(size).fill(0xff));
}

function littleEndian(bytes: Uint8Array): number {
  return bytes.reduceRight((value, byte) => value * 0x100 + byte, 0);
}
