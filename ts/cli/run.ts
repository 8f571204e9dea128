/** `typevisor run`: one guest, its console on stdout and its exit code as the program's own. */

import { messageOf } from '../errors.ts';
import type { Exit } from '../exit.ts';
import type { Registers } from '../registers.ts';
import { codeFor, FAILED, GUEST_MAX, SUCCESS, TIMEOUT } from './codes.ts';
import { command, type Command } from './command.ts';
import { drive, type Ending } from './drive.ts';
import { FIRMWARE_CONSOLE, SERIAL_CONSOLE } from './machine.ts';
import { hex } from './numbers.ts';
import { ConsoleOutput } from './output.ts';
import { DEFAULTS, type Plan, planOf } from './plan.ts';
import { registerLines } from './registers.ts';
import { type ExitStatistics, Statistics } from './statistics.ts';
import { plain, printJson, type Terminal } from './terminal.ts';

/** The command. */
export const RUN: Command = command({
  summary: 'a guest, with its console on stdout',
  about: `Runs a guest (x86_64) on one vCPU, with its console on stdout. It ends by hlt,
by power-off, by a write to the exit port, by the time limit, or by a signal.
Ports and addresses with nothing behind them read as ones.

--flat  FILE is raw machine code. It starts at --entry in the mode of --mode,
        with its stack at the end of memory (real mode: of the first 64 KiB).
        User mode has no hlt: such guests write to the exit port.
--bios  FILE is a PC firmware (default: SeaBIOS, as in 'typevisor tour'). The
        machine has interrupt controllers and 16 MiB of memory; hlt waits for
        an interrupt there.

Other guests (ELF) cannot be run yet.`,
  argument: '[FILE]',
  options: {
    flat: { help: 'FILE is raw machine code' },
    bios: { help: 'FILE is a PC firmware; may be left out' },
    load: { value: 'ADDRESS', help: `where --flat puts FILE (default: ${DEFAULTS.load})` },
    entry: { value: 'ADDRESS', help: 'first instruction of --flat (default: that of --load)' },
    mode: { value: 'MODE', help: `of --flat: real, protected or long (default: ${DEFAULTS.mode})` },
    user: { help: 'start --flat in user mode, ring 3; ports work there' },
    memory: { value: 'SIZE', help: `of --flat, as 64K, 16M or 1G (default: ${DEFAULTS.memory})` },
    console: {
      value: 'PORT',
      help: `of the console: --flat a serial port (default: ${hex(SERIAL_CONSOLE)}),\n--bios a debug port (default: ${hex(FIRMWARE_CONSOLE)})`,
    },
    'exit-port': {
      value: 'PORT',
      help: `a value written here ends the guest with that code\n(default: ${DEFAULTS.exitPort})`,
    },
    timeout: { value: 'SECONDS', help: 'after which the guest is stopped (default: never)' },
    stats: { help: 'exits by kind on stderr: how many, time in guest and handler' },
  },
  codes: `Exit code: the guest's own up to 123, as written to the exit port, or
  0        after hlt or power-off
  69       without KVM
  123      for a code above it; --json has the number
  124      the time was up
  125      Typevisor failed, or the guest stopped in another way, as by a
           reset or a crash that it reports
  126      a guest image that cannot be run
  127      no such file
  128 + n  after signal n`,
  whenFailed: { outcome: 'failed', guestExitCode: null },
  run: async (values, terminal, argument) => await runCommand(planOf(values, argument), terminal),
});

/** How it went: what `--json` shows. */
interface Report {
  readonly file: string;
  readonly kind: Plan['kind'];
  /** `'stopped'`: by an exit after which the guest cannot go on. */
  readonly outcome: 'halted' | 'exited' | 'timeout' | 'interrupted' | 'stopped';
  /** What the guest said, whole; `null` where it did not come to that. */
  readonly guestExitCode: number | null;
  /** Of this program. */
  readonly exitCode: number;
  readonly seconds: number;
  readonly exit?: Exit;
  readonly registers?: Readonly<Registers>;
  readonly exits?: Readonly<Record<string, ExitStatistics>>;
}

async function runCommand(plan: Plan, terminal: Terminal): Promise<number> {
  const output = new ConsoleOutput(terminal.console);
  const statistics = new Statistics();
  const report = await runGuest(plan, output, statistics, terminal);
  await output.finish(terminal.signal);
  const lines = [...messageLines(report, terminal), ...(plan.stats && !terminal.json ? statistics.lines() : [])];
  const echoed = report.outcome === 'interrupted' && process.stderr.isTTY; // ^C
  const sharesTheLine = echoed || (!output.atLineStart && (terminal.json || process.stdout.isTTY));
  if (lines.length > 0) process.stderr.write(`${sharesTheLine ? '\n' : ''}${lines.join('\n')}\n`);
  if (terminal.json) printJson(report);
  return report.exitCode;
}

async function runGuest(
  plan: Plan,
  output: ConsoleOutput,
  statistics: Statistics,
  terminal: Terminal,
): Promise<Report> {
  using machine = plan.machine(output);
  const begin = performance.now();
  const limits = plan.timeoutMs === undefined ? [] : [AbortSignal.timeout(plan.timeoutMs)];
  const signal = AbortSignal.any([terminal.signal, ...limits]);
  const ending = await drive(machine.vcpu, { signal, exitPort: plan.exitPort, statistics });
  const seconds = Math.round(performance.now() - begin) / 1000;
  const { file, kind } = plan;
  const counts = plan.stats ? { exits: statistics.byKind() } : {};
  const stopped = ending.how === 'stopped' ? { registers: machine.vcpu.getRegisters() } : {};
  return { file, kind, ...outcomeOf(ending, terminal.signal), seconds, ...stopped, ...counts };
}

type Outcome = Pick<Report, 'outcome' | 'guestExitCode' | 'exitCode' | 'exit'>;

function outcomeOf(ending: Ending, interrupted: AbortSignal): Outcome {
  switch (ending.how) {
    case 'halted':
      return { outcome: 'halted', guestExitCode: SUCCESS, exitCode: SUCCESS };
    case 'exited':
      return { outcome: 'exited', guestExitCode: ending.code, exitCode: Math.min(ending.code, GUEST_MAX) };
    case 'stopped':
      return { outcome: 'stopped', guestExitCode: null, exitCode: FAILED, exit: ending.exit };
    case 'kicked': // nobody here does
    case 'aborted':
      return interrupted.aborted
        ? { outcome: 'interrupted', guestExitCode: null, exitCode: codeFor(interrupted.reason) }
        : { outcome: 'timeout', guestExitCode: null, exitCode: TIMEOUT };
    default:
      return ending satisfies never;
  }
}

function messageLines({ outcome, exit, registers, seconds }: Report, terminal: Terminal): string[] {
  switch (outcome) {
    case 'timeout':
      return [`typevisor: the guest was stopped after ${seconds} s (--timeout)`];
    case 'interrupted':
      return [`typevisor: ${messageOf(terminal.signal.reason)}`];
    case 'stopped':
      return [
        `typevisor: the guest ${exit === undefined ? 'stopped' : wayOf(exit)}`,
        ...(registers === undefined ? [] : registerLines(registers)),
      ];
    default:
      return [];
  }
}

/** What an exit says of the guest that cannot go on. */
function wayOf(exit: Exit): string {
  const text = JSON.stringify(exit, plain);
  if (exit.kind === 'system-event' && exit.event === 'reset') return `asked for a reset: ${text}`;
  if (exit.kind === 'system-event' && exit.event === 'crash') return `reported a crash: ${text}`;
  return `stopped with the exit ${text}`;
}
