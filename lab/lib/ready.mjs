// A machine that can be booted, or the reason why there is none: what `npm test` and `npm start` do where DESIGN §7 has a row.
import { Stop, say } from '../../scripts/lib/say.mjs';
import { whyNotBuilt } from '../suite/build.mjs';
import { byId } from '../machines.mjs';
import { machineState, prepare } from './prepare.mjs';

/** `{ machine }` ready to boot, made so if need be, or `{ reason }`. Without our own kernel it is Debian's newest. */
export async function labMachine(wanted) {
  const reason = whyNotBuilt(wanted.arch);
  if (reason) return { reason };
  try {
    if (!machineState(wanted).ready) await prepare([wanted]);
    return { machine: wanted };
  } catch (error) {
    if (!(error instanceof Stop)) throw error;
    if (wanted.kernel.kind !== 'lab' || !error.kernelMissing) return { reason: error.message };
    say(`${error.message}\nlab: going on with Debian's newest kernel: what it lacks is skipped`);
    return labMachine(byId('newest'));
  }
}
