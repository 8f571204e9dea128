/** Tests that run guests ask here first: what is missing makes a counted skip whose title says why. */

import test, { type ExecutionContext } from 'ava';
import { type CapabilityName, doctor, Vm } from '../../ts/index.ts';

/** What a test may ask for: a processor, or a capability of a scratch VM. KVM itself is always asked for. */
export type Need = 'x86_64' | 'aarch64' | CapabilityName;

type Implementation = (t: ExecutionContext) => void | Promise<void>;

/** ava's `test`, or `test.skip` titled `… (needs what is missing)`. */
export function needs(...wanted: readonly Need[]): (title: string, implementation: Implementation) => void {
  const missing = whatIsMissing(wanted);
  if (missing.length === 0) return (title, implementation) => test(title, implementation);
  return (title, implementation) => test.skip(`${title} (needs ${missing.join(', ')})`, implementation);
}

/** `needs` of tests whose guests run on either processor. */
export const onKvm: ReturnType<typeof needs> = needs();

/** `needs` of tests whose subject is x86 itself: ports, real mode, firmware, the guests of the command line. */
export const x86: ReturnType<typeof needs> = needs('x86_64');

function whatIsMissing(wanted: readonly Need[]): string[] {
  if (!doctor().usable) return ['KVM'];
  using vm = Vm.create();
  return wanted.filter(need => {
    if (need === 'x86_64') return process.arch !== 'x64';
    if (need === 'aarch64') return process.arch !== 'arm64';
    return !vm.capabilities.has(need);
  });
}
