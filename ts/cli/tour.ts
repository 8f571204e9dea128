/** `typevisor tour`: the doctor's report, two guests of ours, and an unmodified SeaBIOS. */

import { doctor } from '../doctor.ts';
import { FAILED, NO_KVM, SUCCESS, TIMEOUT } from './codes.ts';
import { command, type Command } from './command.ts';
import { showReport } from './doctor.ts';
import { bootFirmware, findFirmware, type FirmwareRun } from './firmware.ts';
import { type GuestRun, runGuests } from './guests.ts';
import { milliseconds } from './numbers.ts';
import { paint, printJson, type Terminal } from './terminal.ts';

const NAME = 'tour';
const DEFAULT_SECONDS = '120';

/** The command. */
export const TOUR: Command = command({
  summary: 'what Typevisor does, in three steps',
  about: `What Typevisor does, in three steps: the doctor's report, two small guests with
their exits, and an unmodified SeaBIOS with its log.

The firmware is $TYPEVISOR_FIRMWARE, that of Debian's package seabios, or the
one in \${XDG_CACHE_HOME:-~/.cache}/typevisor.`,
  options: {
    timeout: { value: 'SECONDS', help: `after which the firmware is stopped (default: ${DEFAULT_SECONDS})` },
  },
  codes: `Exit code: 0; 69 without KVM; 124 where the time was up before the firmware
looked for a boot device; 125 where something failed; 126 for a firmware that is
none; 128 + n after signal n.`,
  run: ({ timeout = DEFAULT_SECONDS }, terminal) => tourCommand(terminal, milliseconds(timeout, NAME)),
});

/** What is not run, and why. */
interface Skipped {
  readonly skipped: string;
}

const X86_ONLY: Skipped = { skipped: 'this step is for x86_64 processors' };

async function tourCommand(terminal: Terminal, timeoutMs: number): Promise<number> {
  heading(terminal, 1, 'This machine');
  const report = doctor();
  showReport(report, terminal, true);
  if (!report.usable) {
    if (terminal.json) printJson({ doctor: report, guests: null, firmware: null });
    return NO_KVM;
  }
  heading(terminal, 2, 'Guests of our own');
  const guests = await onX86(() => runGuests(terminal));
  sayIfSkipped(guests, terminal);
  heading(terminal, 3, 'An unmodified SeaBIOS');
  const firmware = await onX86(() => firmwareStep(timeoutMs, terminal));
  sayIfSkipped(firmware, terminal);
  if (terminal.json) printJson({ doctor: report, guests, firmware });
  return 'skipped' in guests || guests.every(({ outcome }) => outcome === 'as-expected') ? codeOf(firmware) : FAILED;
}

async function onX86<T>(step: () => Promise<T>): Promise<T | Skipped> {
  return process.arch === 'x64' ? await step() : X86_ONLY;
}

async function firmwareStep(timeoutMs: number, terminal: Terminal): Promise<FirmwareRun | Skipped> {
  const found = findFirmware();
  if ('skipped' in found) return found;
  terminal.say(`  ${found.file}, in real mode from the reset vector; its debug log:`);
  terminal.say();
  const run = await bootFirmware(found.file, timeoutMs, terminal);
  terminal.say();
  terminal.say(`  ${verdict(run)}`);
  return run;
}

function verdict({ outcome, seconds, log, exit }: FirmwareRun): string {
  const amount = `${log.split('\n').length - 1} lines of log in ${seconds} s`;
  if (outcome === 'reached') return paint('green', `SeaBIOS came to its search for a boot device: ${amount}.`);
  if (outcome === 'timeout') return paint('red', `Time is up before SeaBIOS looked for a boot device: ${amount}.`);
  return paint('red', `SeaBIOS stopped with the exit '${exit?.kind ?? 'hlt'}': ${amount}.`);
}

function codeOf(firmware: FirmwareRun | Skipped): number {
  if ('skipped' in firmware || firmware.outcome === 'reached') return SUCCESS;
  return firmware.outcome === 'timeout' ? TIMEOUT : FAILED;
}

function sayIfSkipped(step: readonly GuestRun[] | FirmwareRun | Skipped, terminal: Terminal): void {
  if ('skipped' in step) terminal.say(paint('yellow', `  Left out: ${step.skipped}.`));
}

function heading(terminal: Terminal, number: number, title: string): void {
  if (number > 1) terminal.say();
  terminal.say(paint('bold', `${number}. ${title}`));
}
