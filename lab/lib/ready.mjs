// Machines that can be booted, or the reasons why not: what `npm test` does where DESIGN §7 has a row.
import { Stop, say } from '../../scripts/lib/say.mjs';
import { byId } from '../machines.mjs';
import { whyNotBuilt } from '../suite/build.mjs';
import { machineState, prepare } from './prepare.mjs';

/**
 * For each wanted machine `{ wanted, machine }`, made ready if need be, or `{ wanted, reason }`. Without our own kernel
 * `lab` is Debian's newest. A mistake of the person's (exit code 2) is thrown.
 */
export async function labMachines(wanted) {
  const built = wanted.filter(({ arch }) => !whyNotBuilt(arch));
  const failure = await prepared(built);
  const found = [];
  for (const machine of wanted) {
    const reason = whyNotBuilt(machine.arch) ?? whyNotReady(machine, failure);
    if (reason === undefined) found.push({ wanted: machine, machine });
    else if (machine.kernel.kind === 'lab') found.push(await instead(machine, reason));
    else found.push({ wanted: machine, reason });
  }
  return withoutTwins(found);
}

/** Makes ready what is not; what could not be is told by the reasons, all in one text. */
async function prepared(machines) {
  const missing = machines.filter(machine => !machineState(machine).ready);
  if (missing.length === 0) return undefined;
  try {
    await prepare(missing);
    return undefined;
  } catch (error) {
    if (!(error instanceof Stop) || error.exitCode === 2) throw error;
    say(error.message);
    return error.message;
  }
}

function whyNotReady(machine, failure) {
  const { ready, why } = machineState(machine);
  return ready ? undefined : (failure ?? why).split('\n')[0];
}

async function instead(machine, reason) {
  say(`lab: machine lab cannot be had (${reason}); going on with Debian's newest kernel: what it lacks is skipped`);
  const newest = byId('newest');
  const failure = await prepared([newest]);
  const still = whyNotReady(newest, failure);
  return still === undefined ? { wanted: machine, machine: newest } : { wanted: machine, reason };
}

/** A machine that stands in for another and is wanted itself runs once. */
export function withoutTwins(found) {
  const own = new Set(found.filter(({ wanted, machine }) => wanted === machine).map(({ machine }) => machine));
  return found.map(({ wanted, machine, reason }) =>
    machine && machine !== wanted && own.has(machine)
      ? { wanted, reason: `its kernel cannot be had here, and ${machine.id} runs anyway` }
      : { wanted, machine, reason },
  );
}
