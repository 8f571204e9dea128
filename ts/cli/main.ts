#!/usr/bin/env node
/** The program `typevisor`: arguments to a command, its outcome to an exit code. */

import { createRequire } from 'node:module';
import { messageOf, TypevisorError } from '../errors.ts';
import { codeFor, FAILED, Interrupted, SUCCESS } from './codes.ts';
import { check, type Command, helpOf, Misuse, type Options, optionLines, parse, type Parsed } from './command.ts';
import { COMMANDS } from './commands.ts';
import { MOMENT_MS } from './output.ts';
import { printJson, terminal } from './terminal.ts';

const GLOBAL: Options = { version: { help: 'the version of Typevisor' } };

for (const stream of [process.stdout, process.stderr]) stream.on('error', endQuietly);
process.exitCode = await main(process.argv.slice(2));

/** A reader that has gone, as `head`, is no failure of ours; and there is nobody left to tell. */
function endQuietly(error: NodeJS.ErrnoException): void {
  if (error.code !== 'EPIPE') throw error;
  process.exit(SUCCESS);
}

async function main(args: string[]): Promise<number> {
  try {
    const parsed = parse(args, COMMANDS.values(), GLOBAL);
    return await dispatch(parsed, parsed.positionals[0]);
  } catch (error) {
    if (!(error instanceof Misuse)) throw error;
    const { message, command } = error;
    process.stderr.write(
      `typevisor: ${message}\nTry 'typevisor ${command === undefined ? '' : `${command} `}--help'.\n`,
    );
    return FAILED;
  }
}

async function dispatch(parsed: Parsed, name: string | undefined): Promise<number> {
  const { version: wantsVersion, ...values } = parsed.values;
  if (wantsVersion === true) return print(`${version()}\n`);
  if (name === undefined) {
    if (values['help'] === true) return print(help());
    process.stderr.write(help());
    return FAILED;
  }
  const command = COMMANDS.get(name);
  if (command === undefined) throw new Misuse(`there is no command '${name}'`);
  if (values['help'] === true) return print(helpOf(name, command));
  check(name, command, { ...parsed, values });
  return await perform(command, { ...parsed, values });
}

async function perform(command: Command, { values, positionals }: Parsed): Promise<number> {
  const json = values['json'] === true;
  const interrupted = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => interrupted.abort(new Interrupted(signal))); // a second one ends the process
  }
  try {
    return await command.run(values, terminal(json, interrupted.signal), positionals[1]);
  } catch (error) {
    if (error instanceof Misuse) throw error;
    const exitCode = codeFor(error);
    const message = messageOf(error);
    const code = error instanceof TypevisorError ? error.code : null;
    if (error instanceof Interrupted) process.stderr.write('\n');
    process.stderr.write(`typevisor: ${message}\n`);
    if (json) printJson({ ...command.whenFailed, exitCode, error: { code, message } });
    return exitCode;
  } finally {
    // Output that nobody reads keeps a program alive; one that was told to end ends.
    if (interrupted.signal.aborted) setTimeout(() => process.exit(), MOMENT_MS).unref();
  }
}

function help(): string {
  const width = Math.max(...[...COMMANDS.keys()].map(({ length }) => length)) + 2;
  const commands = Array.from(COMMANDS, ([name, { summary }]) => `${name.padEnd(width)}${summary}`).join('\n');
  const options = optionLines({
    help: { short: 'h', help: 'this text; after a command, that of the command with its options' },
    ...GLOBAL,
  });
  return `usage: typevisor COMMAND [OPTION…]\n\nKVM for TypeScript.\n\n${commands}\n\n${options}\n`;
}

function print(text: string): number {
  process.stdout.write(text);
  return SUCCESS;
}

function version(): string {
  const manifest: { version: string } = createRequire(import.meta.url)('../../package.json');
  return manifest.version;
}
