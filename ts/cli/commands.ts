/** The commands of `typevisor`, in the order in which the help lists them. */

import { CAPS } from './caps.ts';
import type { Command } from './command.ts';
import { DOCTOR } from './doctor.ts';
import { RUN } from './run.ts';
import { TOUR } from './tour.ts';

/** All of them by name. */
export const COMMANDS: ReadonlyMap<string, Command> = new Map([
  ['doctor', DOCTOR],
  ['caps', CAPS],
  ['run', RUN],
  ['tour', TOUR],
]);
