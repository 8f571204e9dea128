#!/usr/bin/env node
/** The program `typevisor`: arguments to a command, its outcome to an exit code. */

import { createRequire } from 'node:module';
import { parseArgs } from 'node:util';
import { messageOf } from '../errors.ts';
import { codeFor, FAILED, Interrupted, SUCCESS } from './codes.ts';
import { doctorCommand, HELP as DOCTOR_HELP } from './doctor.ts';
import { type Terminal, terminal } from './terminal.ts';
import { HELP as TOUR_HELP, tourCommand } from './tour.ts';

const HELP = `usage: typevisor COMMAND [OPTION…]

KVM for TypeScript.

doctor     what works on this machine, and why not
tour       what Typevisor does, in three steps

--help     of Typevisor or of a command
--json     one object on stdout, the guest's console on stderr
--version
`;

/** Longest time limit a timer takes, in seconds. */
const SECONDS_MAX = Math.floor((2 ** 31 - 1) / 1000);
const DEFAULT_SECONDS = '120';

/** An argument that makes no sense; its message is all there is to say. */
class Misuse extends Error {}

interface Command {
  readonly help: string;
  run(terminal: Terminal, timeoutMs: number): Promise<number> | number;
}

const COMMANDS: ReadonlyMap<string, Command> = new Map([
  ['doctor', { help: DOCTOR_HELP, run: doctorCommand }],
  ['tour', { help: TOUR_HELP, run: tourCommand }],
]);

process.stdout.on('error', endQuietly);
process.exitCode = await main(process.argv.slice(2));

/** A reader that has gone, as `head`, is no failure of ours; and there is nobody left to tell. */
function endQuietly(error: NodeJS.ErrnoException): void {
  if (error.code !== 'EPIPE') throw error;
  process.exit(SUCCESS);
}

async function main(args: string[]): Promise<number> {
  const interrupted = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => interrupted.abort(new Interrupted(signal))); // a second one ends the process
  }
  try {
    return await dispatch(args, interrupted.signal);
  } catch (error) {
    if (error instanceof Interrupted) process.stderr.write('\n');
    process.stderr.write(`typevisor: ${messageOf(error)}\n`);
    if (error instanceof Misuse) process.stderr.write("Try 'typevisor --help'.\n");
    return codeFor(error);
  }
}

async function dispatch(args: string[], signal: AbortSignal): Promise<number> {
  const { values, positionals } = parse(args);
  const [name, ...rest] = positionals;
  if (values.version === true) return print(`${version()}\n`);
  if (name === undefined) {
    if (values.help === true) return print(HELP);
    process.stderr.write(HELP);
    return FAILED;
  }
  const command = COMMANDS.get(name);
  if (command === undefined) throw new Misuse(`there is no command '${name}'`);
  if (values.help === true) return print(command.help);
  if (rest.length > 0) throw new Misuse(`'${name}' takes no argument '${rest[0]}'`);
  if (values.timeout !== undefined && name !== 'tour') throw new Misuse(`'${name}' takes no --timeout`);
  return await command.run(terminal(values.json === true, signal), milliseconds(values.timeout ?? DEFAULT_SECONDS));
}

interface Parsed {
  readonly values: { help?: boolean; json?: boolean; version?: boolean; timeout?: string };
  readonly positionals: string[];
}

function parse(args: string[]): Parsed {
  const flag = { type: 'boolean' } as const;
  const options = { help: { ...flag, short: 'h' }, json: flag, version: flag, timeout: { type: 'string' } } as const;
  try {
    return parseArgs({ args, options, allowPositionals: true });
  } catch (error) {
    throw new Misuse(messageOf(error));
  }
}

function milliseconds(seconds: string): number {
  const number = seconds.trim() === '' ? Number.NaN : Number(seconds);
  if (number > 0 && number <= SECONDS_MAX) return Math.ceil(number * 1000);
  throw new Misuse(`--timeout takes seconds, more than 0 and at most ${SECONDS_MAX}; got '${seconds}'`);
}

function print(text: string): number {
  process.stdout.write(text);
  return SUCCESS;
}

function version(): string {
  const manifest: { version: string } = createRequire(import.meta.url)('../../package.json');
  return manifest.version;
}
