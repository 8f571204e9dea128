/** Tiny x86 guests as bytes, and the machine they run in: 64 KiB of RAM from 0, code at 0x1000, real mode. */

import { KiB, type Vcpu, Vm } from '../../ts/index.ts';

/** Where code begins. */
export const ENTRY = 0x1000;

/** jmp $ */
export const SPIN: readonly number[] = [0xeb, 0xfe];
/** hlt */
export const HLT: readonly number[] = [0xf4];
/** in al, 0x60; hlt */
export const ASK: readonly number[] = [0xe4, 0x60, 0xf4];
/** mov dx, 0x402; mov al, 'x'; again: out dx, al; jmp again */
export const CHATTER: readonly number[] = [0xba, 0x02, 0x04, 0xb0, 0x78, 0xee, 0xeb, 0xfd];

/** A VM with one vCPU, and its end. */
export interface Machine extends Disposable {
  readonly vm: Vm;
  readonly vcpu: Vcpu;
}

/** A machine about to run `code`. */
export function machine(code: readonly number[]): Machine {
  const vm = Vm.create();
  vm.memory.map({ gpa: 0, size: 64 * KiB });
  vm.memory.write(ENTRY, Uint8Array.from(code));
  const vcpu = vm.createVcpu();
  vcpu.boot({ mode: 'real', entry: ENTRY });
  return { vm, vcpu, [Symbol.dispose]: () => vm.close() };
}

/** mov si, 0x1080; mov dx, port; next: lodsb; test al, al; jz done; out dx, al; jmp next; done: hlt; …; the text, 0 */
export function printer(port: number, text: string): readonly number[] {
  const code = [0xbe, 0x80, 0x10, 0xba, port & 0xff, port >> 8, 0xac, 0x84, 0xc0, 0x74, 0x03, 0xee, 0xeb, 0xf8, 0xf4];
  const padding = Array.from({ length: 0x80 - code.length }, () => 0x90);
  return [...code, ...padding, ...new TextEncoder().encode(text), 0];
}
