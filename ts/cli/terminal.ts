/** What commands print with. Colours obey `NO_COLOR`, `FORCE_COLOR` and the terminal: `styleText` asks its stream. */

import { styleText } from 'node:util';

/** Where a command's output goes, and when to stop. */
export interface Terminal {
  /** Machine-readable: text for people is left out, and the guest's console goes to stderr. */
  readonly json: boolean;
  /** Aborted when a signal asks the program to end. */
  readonly signal: AbortSignal;
  /** A line for people. */
  say(line?: string): void;
  /** What the guest wrote. */
  readonly console: NodeJS.WritableStream;
}

/** A terminal on the process's own streams. */
export function terminal(json: boolean, signal: AbortSignal): Terminal {
  return {
    json,
    signal,
    say: (line = '') => void (json || process.stdout.write(`${line}\n`)),
    console: json ? process.stderr : process.stdout,
  };
}

type Style = 'bold' | 'dim' | 'red' | 'green' | 'yellow' | 'cyan';

/** Text for stdout. One style at a time: given several, `styleText` of Node 20 ignores `NO_COLOR` and pipes. */
export function paint(style: Style, text: string): string {
  return styleText(style, text, { stream: process.stdout });
}

/** One object on stdout: bigints as `"0x…"`, bytes as numbers. */
export function printJson(value: object): void {
  process.stdout.write(`${JSON.stringify({ schemaVersion: 1, ...value }, plain, 2)}\n`);
}

/** What JSON has no form for: bigints become `"0x…"`, bytes arrays of numbers. */
export function plain(_key: string, value: unknown): unknown {
  if (typeof value === 'bigint') return `0x${value.toString(16)}`;
  return value instanceof Uint8Array ? Array.from(value) : value;
}
