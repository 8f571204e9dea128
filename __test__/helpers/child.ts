/** Programs of `__test__/fixtures`, each in a process of its own: for what a test process cannot show about itself. */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { extname } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = new URL('../../', import.meta.url);

/** `.ts`, or `.js` where the tests run compiled, as in the machines of the lab: fixtures and examples are then, too. */
export const EXTENSION: string = extname(import.meta.url);

/** How a child ended, and what it said. */
export interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** How to run it. */
export interface ChildOptions {
  readonly args?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  readonly nodeArgs?: readonly string[];
  /** Called with what stdout has so far. */
  readonly onStdout?: (soFar: string, kill: (signal: NodeJS.Signals) => void) => void;
}

/** The path of a file of this repository. */
export function path(name: string): string {
  return fileURLToPath(new URL(name, ROOT));
}

/** Runs a fixture by name. */
export function fixture(name: string, options: ChildOptions = {}): Promise<Ended> {
  return program(path(`__test__/fixtures/${name}${EXTENSION}`), options);
}

/** Runs a program, TypeScript or JavaScript, under Node. */
export async function program(file: string, options: ChildOptions = {}): Promise<Ended> {
  const { args = [], env = {}, nodeArgs = [], onStdout } = options;
  const { FORCE_COLOR: _, ...inherited } = process.env;
  const register = file.endsWith('.ts') ? [`--import=${import.meta.resolve('@oxc-node/core/register')}`] : [];
  const child = spawn(process.execPath, [...register, ...nodeArgs, file, ...args], {
    env: { ...inherited, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let [stdout, stderr] = ['', ''];
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
    onStdout?.(stdout, signal => child.kill(signal));
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  await once(child, 'close');
  return { code: child.exitCode, signal: child.signalCode, stdout, stderr };
}
