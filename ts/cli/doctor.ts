/** `typevisor doctor`: what works on this machine, as a table. */

import { doctor, type DoctorCheck, type DoctorReport } from '../doctor.ts';
import { NO_KVM, SUCCESS } from './codes.ts';
import { command, type Command } from './command.ts';
import { paint, printJson, type Terminal } from './terminal.ts';

/** The command. */
export const DOCTOR: Command = command({
  summary: 'what works on this machine, and why not',
  about: 'What works on this machine, what does not, why, and the command that would\nfix it.',
  options: {},
  codes: 'Exit code: 0 where guests can run, else 69.',
  run: (_values, terminal) => doctorCommand(terminal),
});

function doctorCommand(terminal: Terminal): number {
  const report = doctor();
  if (terminal.json) printJson({ ...report });
  else showReport(report, terminal);
  return report.usable ? SUCCESS : NO_KVM;
}

const MARKS = {
  ok: paint.bind(undefined, 'green', '✓'),
  missing: paint.bind(undefined, 'dim', '–'),
  limited: paint.bind(undefined, 'yellow', '~'),
  failed: paint.bind(undefined, 'red', '✗'),
} as const;

/** The report for people: facts, checks with their remedies (in `short`, of what should work), and the verdict. */
export function showReport({ usable, facts, checks }: DoctorReport, terminal: Terminal, short = false): void {
  const width = Math.max(...facts.map(({ name }) => name.length), ...checks.map(({ title }) => title.length));
  for (const { name, value } of facts) terminal.say(`    ${name.padEnd(width)}  ${value}`);
  for (const check of checks) {
    showCheck(check, width, terminal);
    if (short && usable && check.status !== 'failed') continue;
    if (check.remedy !== undefined) terminal.say(`    ${''.padEnd(width)}  ${paint('cyan', `→ ${check.remedy}`)}`);
  }
  terminal.say(usable ? paint('green', '  Guests can run here.') : paint('red', '  Guests cannot run here.'));
}

function showCheck({ status, title, detail }: DoctorCheck, width: number, terminal: Terminal): void {
  terminal.say(`  ${MARKS[status]()} ${title.padEnd(width)}  ${status === 'missing' ? paint('dim', detail) : detail}`);
}
