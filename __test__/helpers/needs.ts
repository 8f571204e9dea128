/** Tests that run guests ask here first: what is missing makes a counted skip whose title says why. */

import test, { type ExecutionContext } from 'ava';
import { findFirmware } from '../../ts/cli/firmware.ts';
import { type CapabilityName, doctor, Vm } from '../../ts/index.ts';
import { scaled } from './scale.ts';

/**
 * What a test may ask for: a processor, a firmware, a machine that stands many ten thousand exits, or a capability of a
 * scratch VM. KVM itself is always asked for.
 */
export type Need = 'x86_64' | 'aarch64' | 'SeaBIOS' | 'speed' | CapabilityName;

type Implementation = (t: ExecutionContext) => void | Promise<void>;

/** Adds a test; `serial` one that runs while no other of its file does. */
export interface Tester {
  (title: string, implementation: Implementation): void;
  readonly serial: (title: string, implementation: Implementation) => void;
}

/** ava's `test`, or `test.skip` titled `… (needs what is missing)`. */
export function needs(...wanted: readonly Need[]): Tester {
  const missing = whatIsMissing(wanted);
  const adder =
    (add: typeof test.serial) =>
    (title: string, implementation: Implementation): void => {
      if (missing.length === 0) add(title, implementation);
      else test.skip(`${title} (needs ${missing.join(', ')})`, implementation);
    };
  return Object.assign(adder(test), { serial: adder(test.serial) });
}

/** `needs` of tests whose guests run on either processor. */
export const onKvm: Tester = needs();

/** `needs` of tests whose subject is x86 itself: ports, real mode, firmware, the guests of the command line. */
export const x86: Tester = needs('x86_64');

function whatIsMissing(wanted: readonly Need[]): string[] {
  if (!doctor().usable) return ['KVM'];
  using vm = Vm.create();
  return wanted.filter(need => {
    if (need === 'x86_64') return process.arch !== 'x64';
    if (need === 'SeaBIOS') return !('file' in findFirmware());
    if (need === 'aarch64') return process.arch !== 'arm64';
    // About one exit in a million goes wrong under emulation of x86_64 (docs/design/lab.md).
    if (need === 'speed') return process.arch === 'x64' && scaled(100) < 100;
    return !vm.capabilities.has(need);
  });
}
