/** The tour's own guests (x86_64), as bytes with their assembly, and what drives them exit by exit. */

import type { Exit } from '../exit.ts';
import { KiB } from '../units.ts';
import type { Vcpu } from '../vcpu.ts';
import { Vm } from '../vm.ts';
import { paint, type Terminal } from './terminal.ts';

/** Prints `Hello` to a port, asks another port for a byte, and stores it where there is no memory. Begins at 0x1000. */
// oxfmt-ignore
const REAL_MODE = Uint8Array.of(
  0xbe, 0x14, 0x10,                      //          mov si, message
  0xba, 0xf8, 0x03,                      //          mov dx, 0x3f8
  0xac,                                  // next:    lodsb
  0x84, 0xc0,                            //          test al, al
  0x74, 0x03,                            //          jz done
  0xee,                                  //          out dx, al
  0xeb, 0xf8,                            //          jmp next
  0xe4, 0x60,                            // done:    in al, 0x60
  0xa2, 0x00, 0x80,                      //          mov [0x8000], al
  0xf4,                                  //          hlt
  0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00,    // message: "Hello", 0
);

/** Computes 20! in a 64-bit register of ring 3, where `hlt` is forbidden: a port is the doorbell. Begins at 0x1000. */
// oxfmt-ignore
const LONG_MODE = Uint8Array.of(
  0xb8, 0x01, 0x00, 0x00, 0x00,          //          mov eax, 1
  0xb9, 0x14, 0x00, 0x00, 0x00,          //          mov ecx, 20
  0x48, 0x0f, 0xaf, 0xc1,                // next:    imul rax, rcx
  0xff, 0xc9,                            //          dec ecx
  0x75, 0xf8,                            //          jnz next
  0xe6, 0x80,                            //          out 0x80, al
  0xeb, 0xfe,                            //          jmp $
);

/** What the host answers to the real-mode guest's question. */
const ANSWER = 0x2a;

/** 20!, which needs more than 32 bits. */
const FACTORIAL = 2_432_902_008_176_640_000n;

/** What a guest did. */
export interface GuestRun {
  readonly name: string;
  readonly outcome: 'as-expected' | 'unexpected';
  readonly exits: readonly Exit[];
  /** What it computed. */
  readonly result?: bigint;
}

/** Runs both guests and shows their exits. */
export async function runGuests(terminal: Terminal): Promise<GuestRun[]> {
  return [await realMode(terminal), await longMode(terminal)];
}

async function realMode(terminal: Terminal): Promise<GuestRun> {
  terminal.say(
    '  A guest in 16-bit real mode prints to a port, asks another one, writes where no memory is, and halts:',
  );
  using vm = Vm.create();
  vm.memory.map({ gpa: 0x1000, size: 4 * KiB });
  vm.memory.write(0x1000, REAL_MODE);
  const vcpu = vm.createVcpu();
  vcpu.boot({ mode: 'real', entry: 0x1000 });
  const exits: Exit[] = [];
  for (;;) {
    const exit = await step(vcpu, exits, terminal);
    if (exit.kind === 'io' && exit.direction === 'in') {
      terminal.say(paint('dim', `         answered with 0x${ANSWER.toString(16)}`));
      vcpu.answer(ANSWER);
    } else if (exit.kind !== 'io' && exit.kind !== 'mmio') {
      return ended('real-mode', exit.kind === 'hlt', exits, terminal);
    }
  }
}

async function longMode(terminal: Terminal): Promise<GuestRun> {
  terminal.say();
  terminal.say('  A guest in 64-bit user mode computes 20! and rings a port:');
  using vm = Vm.create();
  vm.memory.map({ gpa: 0x1000, size: 4 * KiB });
  vm.memory.write(0x1000, LONG_MODE);
  const vcpu = vm.createVcpu();
  vcpu.boot({ mode: 'long', privilege: 'user', entry: 0x1000 });
  const exits: Exit[] = [];
  await step(vcpu, exits, terminal);
  await vcpu.settle(); // the `out` is not complete, and registers not final, before
  const { rax: result = 0n, cs } = vcpu.getRegisters();
  terminal.say(`         rax = ${paint('bold', String(result))}, in ring ${(cs?.selector ?? 0) & 3}`);
  return { ...ended('long-mode', result === FACTORIAL, exits, terminal), result };
}

function ended(name: string, expected: boolean, exits: readonly Exit[], terminal: Terminal): GuestRun {
  if (!expected) terminal.say(paint('red', '  That is not what this guest should do; please report it.'));
  return { name, outcome: expected ? 'as-expected' : 'unexpected', exits };
}

async function step(vcpu: Vcpu, exits: Exit[], terminal: Terminal): Promise<Exit> {
  const exit = await vcpu.run({ signal: terminal.signal });
  exits.push(exit);
  terminal.say(
    `    ${String(exits.length).padStart(3)}  ${paint('cyan', exit.kind.padEnd(4))}  ${describe(exit)}`.trimEnd(),
  );
  return exit;
}

function describe(exit: Exit): string {
  switch (exit.kind) {
    case 'io':
      return exit.direction === 'out'
        ? `out   port 0x${exit.port.toString(16)}  ${show(exit.data)}`
        : `in    port 0x${exit.port.toString(16)}   wants ${exit.size * exit.count} B`;
    case 'mmio':
      return exit.direction === 'write'
        ? `write 0x${exit.gpa.toString(16)}      ${show(exit.data)}`
        : `read  0x${exit.gpa.toString(16)}      wants ${exit.size} B`;
    default:
      return '';
  }
}

function show(data: Uint8Array): string {
  const hex = Array.from(data, byte => byte.toString(16).padStart(2, '0')).join(' ');
  const text = new TextDecoder('latin1').decode(data);
  return /^[ -~]+$/u.test(text) ? `${hex}  '${text}'` : hex;
}
