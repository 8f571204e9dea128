/** What a command is: its options as one table, from which its arguments are parsed and its help is written. */

import { parseArgs } from 'node:util';
import { messageOf } from '../errors.ts';
import type { Terminal } from './terminal.ts';

/** One option. */
export interface Option {
  /** What its value is called in the help; an option without takes none. */
  readonly value?: string;
  readonly short?: string;
  readonly help: string;
}

/** The options of a command by name. */
export type Options = Readonly<Record<string, Option>>;

/** What was given, by option: text where it takes a value. */
type Values<O extends Options> = {
  readonly [Name in keyof O]?: O[Name] extends { readonly value: string } ? string : boolean;
};

interface Spec<O extends Options> {
  /** A few words for the list of commands. */
  readonly summary: string;
  /** What it does, in lines of at most 80 columns. */
  readonly about: string;
  /** Name of its one argument; in brackets where that may be left out. */
  readonly argument?: string;
  readonly options: O;
  /** What its exit codes say, in lines of at most 80 columns. */
  readonly codes: string;
  /** What `--json` shows beside the error where the command fails. */
  readonly whenFailed?: object;
  /** Does it; gives the exit code. */
  run(values: Values<O>, terminal: Terminal, argument: string | undefined): Promise<number> | number;
}

/** A command of any options. */
export interface Command extends Omit<Spec<Options>, 'run'> {
  run(values: Given, terminal: Terminal, argument: string | undefined): Promise<number> | number;
}

type Given = Readonly<Record<string, string | boolean | undefined>>;

/** An argument that makes no sense; its message is all there is to say. */
export class Misuse extends Error {
  /** The command it was meant for, where there is one. */
  readonly command: string | undefined;

  constructor(message: string, meantFor?: string) {
    super(message);
    this.command = meantFor;
  }
}

/** Options that every command has. */
export const COMMON: Options = {
  json: { help: 'one object on stdout; what a guest prints then goes to stderr' },
  help: { short: 'h', help: 'this text' },
};

/** Binds a command's code to its table: an option that is not in it does not compile. */
export function command<const O extends Options>(spec: Spec<O>): Command {
  return spec;
}

/** What stood on the command line. */
export interface Parsed {
  readonly values: Given;
  readonly positionals: readonly string[];
}

/**
 * Parses with the options of all commands, so that they may stand before the command too.
 *
 * @throws {Misuse} For what no command knows, and for a value that is missing or too many.
 */
export function parse(args: string[], commands: Iterable<Command>, global: Options): Parsed {
  const known = [...commands].flatMap(({ options }) => Object.entries(options));
  const options = Object.fromEntries(
    [...known, ...Object.entries({ ...COMMON, ...global })].map(([name, { value, short }]) => {
      const type: 'boolean' | 'string' = value === undefined ? 'boolean' : 'string';
      return [name, short === undefined ? { type } : { type, short }];
    }),
  );
  try {
    const { values, positionals } = parseArgs({ args, options, allowPositionals: true });
    return {
      values: Object.fromEntries(Object.entries(values).map(([name, value]) => [name, one(value)])),
      positionals,
    };
  } catch (error) {
    throw new Misuse(messageOf(error).replaceAll('\n', ' '));
  }
}

/** No option of ours is `multiple`: of several the last counts, as `parseArgs` has it. */
function one(value: string | boolean | (string | boolean)[] | undefined): string | boolean | undefined {
  return Array.isArray(value) ? value.at(-1) : value;
}

/** @throws {Misuse} For options and arguments that are not this command's. */
export function check(name: string, { options, argument }: Command, { values, positionals }: Parsed): void {
  const foreign = Object.keys(values).find(given => !(given in options) && !(given in COMMON));
  if (foreign !== undefined) throw new Misuse(`'${name}' takes no --${foreign}`, name);
  const [given, ...tooMany] = positionals.slice(1);
  const refused = argument === undefined ? given : tooMany[0];
  if (refused !== undefined) throw new Misuse(`'${name}' takes no argument '${refused}'`, name);
  if (given === undefined && argument !== undefined && !argument.startsWith('[')) {
    throw new Misuse(`'${name}' needs the argument ${argument}`, name);
  }
}

/** The help of one command. */
export function helpOf(name: string, { about, argument, options, codes }: Command): string {
  const usage = ['usage: typevisor', name, '[OPTION…]', ...(argument === undefined ? [] : [argument])].join(' ');
  return `${usage}\n\n${about}\n\n${optionLines({ ...options, ...COMMON })}\n\n${codes}\n`;
}

/** One line for each option, more where its help has more. */
export function optionLines(options: Options): string {
  const names = Object.entries(options).map(([name, { value, short }]) =>
    [`${short === undefined ? '' : `-${short}, `}--${name}`, ...(value === undefined ? [] : [value])].join(' '),
  );
  const width = Math.max(...names.map(({ length }) => length)) + 2;
  const helps = Object.values(options).map(({ help }) => help.replaceAll('\n', `\n${' '.repeat(width)}`));
  return names.map((name, index) => `${name.padEnd(width)}${helps[index]}`).join('\n');
}
