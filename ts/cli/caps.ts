/** `typevisor caps`: the capability table, as `/dev/kvm` and a VM answer it. */

import type { Capability } from '../capabilities.ts';
import { Kvm } from '../kvm.ts';
import { Vm } from '../vm.ts';
import { SUCCESS } from './codes.ts';
import { command, type Command } from './command.ts';
import { paint, printJson, type Terminal } from './terminal.ts';

/** The command. */
export const CAPS: Command = command({
  summary: 'the capabilities of KVM, as the running kernel answers',
  about: `The capabilities of KVM that are present here: name, number in the kernel's
header, what KVM_CHECK_EXTENSION returns on /dev/kvm and on a VM, the first
kernel that has it, and what the value means. The VM's answer is the one that
counts: /dev/kvm answers for the best VM it could make.

On a terminal each line is folded to its width; in a pipe it stays whole.`,
  options: {
    all: { help: 'absent ones too, whose value is 0' },
    vm: { help: "the VM's answer alone" },
  },
  codes: 'Exit code: 0; 69 without KVM; 125 where something failed.',
  run: ({ all = false, vm = false }, terminal) => capsCommand(all, vm, terminal),
});

/** One capability as the table shows it. */
export interface Row {
  readonly name: string;
  readonly number: number;
  /** What `/dev/kvm` answered, unless only the VM's answer is asked for. */
  readonly kvm?: number;
  readonly vm: number;
  readonly since: string;
  readonly meaning: string;
}

function capsCommand(all: boolean, vmOnly: boolean, terminal: Terminal): number {
  using kvm = Kvm.open();
  using vm = Vm.create({ kvm });
  const rows = [...vm.capabilities].map(capability => row(capability, vmOnly ? undefined : kvm));
  const shown = all ? rows : rows.filter(isPresent);
  if (terminal.json) {
    printJson({ capabilities: shown });
    return SUCCESS;
  }
  for (const line of table(shown, process.stdout.columns)) terminal.say(line);
  const absent = rows.length - shown.length;
  if (absent > 0 && process.stdout.isTTY)
    terminal.say(`${shown.length} are present, ${absent} absent (--all shows them).`);
  return SUCCESS;
}

function row({ name, number, value, since, meaning }: Capability, kvm: Kvm | undefined): Row {
  const onKvm = kvm === undefined ? {} : { kvm: kvm.capabilities.value(name) };
  return { name, number, ...onKvm, vm: value, since, meaning };
}

function isPresent({ kvm = 0, vm }: Row): boolean {
  return kvm !== 0 || vm !== 0;
}

/** Narrower than this the meaning gets lines of its own, below its capability. */
const MEANING_MIN = 40;
const INDENT = '    ';

/** The table as lines; folded to `columns` where that is given. */
export function table(rows: readonly Row[], columns: number | undefined): string[] {
  const heads = ['name', 'no.', ...(rows[0]?.kvm === undefined ? [] : ['/dev/kvm']), 'VM', 'since'];
  const cells = rows.map(({ name, number, kvm, vm, since }) => {
    const values = kvm === undefined ? [vm] : [kvm, vm];
    return [name, ...[number, ...values].map(String), since.replace(' or earlier', '-')];
  });
  const widths = heads.map((head, column) => Math.max(head.length, ...cells.map(line => line[column]?.length ?? 0)));
  const pad = (line: readonly string[]): string =>
    line
      .map((cell, column) => (column === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[column] ?? 0)))
      .join('  ');
  const left = widths.reduce((sum, width) => sum + width + 2, 0);
  const lines = rows.flatMap(({ meaning, ...capability }, index) => {
    const line = pad(cells[index] ?? []);
    const shade = (text: string): string => (isPresent({ meaning, ...capability }) ? text : paint('dim', text));
    if (columns === undefined) return [shade(`${line}  ${meaning}`)];
    if (columns - left >= MEANING_MIN) {
      const [first = '', ...rest] = fold(meaning, columns - left);
      return [`${line}  ${first}`, ...rest.map(part => `${' '.repeat(left)}${part}`)].map(shade);
    }
    return [shade(line), ...fold(meaning, columns - INDENT.length).map(part => paint('dim', `${INDENT}${part}`))];
  });
  return [paint('bold', `${pad(heads)}  meaning`), ...lines];
}

/** Breaks at spaces into lines of at most `width`; a longer word keeps a line of its own. */
export function fold(text: string, width: number): string[] {
  const lines: string[] = [];
  for (const word of text.split(' ')) {
    const last = lines.at(-1);
    if (last === undefined || last.length + 1 + word.length > width) lines.push(word);
    else lines[lines.length - 1] = `${last} ${word}`;
  }
  return lines;
}
