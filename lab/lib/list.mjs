// `npm run lab -- list`: the machines as a table or as JSON.
import { Stop } from '../../scripts/lib/say.mjs';
import { MACHINES, defaultMachine } from '../machines.mjs';
import { remembered } from './has.mjs';
import { machineState } from './prepare.mjs';

/** Prints all machines; gives the exit code. */
export function list({ json }) {
  const rows = MACHINES.map(describe);
  if (json) console.log(JSON.stringify({ schemaVersion: 1, machines: rows }, null, 2));
  else for (const row of rows) print(row);
  return 0;
}

function describe(machine) {
  const { ready, version, why } = stateOf(machine);
  const { id, arch, about } = machine;
  return {
    id,
    arch,
    about,
    default: machine === defaultMachine(),
    ready,
    ...(ready ? { kernel: version } : { why }),
    has: remembered(machine) ?? [],
  };
}

/** A wrong TYPEVISOR_LAB_IMAGE is one machine's reason, and not the end of the list. */
function stateOf(machine) {
  try {
    return machineState(machine);
  } catch (error) {
    if (!(error instanceof Stop)) throw error;
    return { ready: false, why: error.message };
  }
}

function print({ id, arch, about, ready, kernel, why, has, default: isDefault }) {
  console.log(
    `${isDefault ? '*' : ' '} ${id.padEnd(14)}  ${arch.padEnd(7)}  ${ready ? `ready: Linux ${kernel}` : `not ready: ${why}`}`,
  );
  console.log(`    ${about}${isDefault ? '; the default, and what npm test uses' : ''}`);
  if (has.length === 0) console.log('    (what its KVM has is noted at its first boot)');
  for (const { type, capabilities } of has) console.log(`    ${type} VM: ${capabilities.join(', ')}`);
}
