/** The program `typevisor`, as built into `dist/`: what users run, and what shows that the build runs on this Node. */

import { existsSync } from 'node:fs';
import { type ChildOptions, type Ended, path, program } from './child.ts';

/** Runs `typevisor` with those arguments. */
export function typevisor(args: readonly string[], options: ChildOptions = {}): Promise<Ended> {
  const file = path('dist/cli/main.js');
  if (!existsSync(file)) throw new Error('dist/ is not built: run npm run build:ts, or npm test, which does');
  return program(file, { ...options, args });
}
