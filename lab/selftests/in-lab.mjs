// The kernel's selftests in a machine of the lab. One that dies takes a single test with it: the others run in a new one.
import { cpSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { ROOT } from '../../scripts/lib/paths.mjs';
import { Stop, say } from '../../scripts/lib/say.mjs';
import { runInMachine } from '../lib/boot.mjs';
import { machineState, prepare } from '../lib/prepare.mjs';
import { hostArch } from '../machines.mjs';
import { Follower } from './follow.mjs';

/** What the machine may take besides the tests. */
const SLACK_S = 60;

/** Runs tests (`names`, in the folder `dir`) and shows each as it ends: `{ kernel, ran }`. */
export async function inLab(machine, dir, names, timeoutS, show) {
  if (!machineState(machine).ready) await prepare([machine]);
  const folder = visible(machine, dir);
  const boot = (rest, onOutput) =>
    runInMachine(machine, ['node', 'lab/selftests/run.mjs', folder, String(timeoutS), ...rest], {
      folder: ROOT,
      timeoutS: rest.length * (timeoutS + 1) + SLACK_S,
      onOutput,
    });
  return runAll(machine.id, names, boot, show);
}

/** The tests where the machine sees them: with this processor the cache itself, else a copy in the repository. */
function visible(machine, dir) {
  if (machine.arch === hostArch()) return dir;
  const copy = join(ROOT, 'target/lab/selftests', `programs-${machine.arch}`);
  rmSync(copy, { recursive: true, force: true });
  cpSync(dir, copy, { recursive: true });
  return copy;
}

/** `boot(names, onOutput)` runs tests in a new machine, as `runInMachine` does. */
export async function runAll(id, names, boot, show) {
  const ran = [];
  let kernel;
  const add = result => {
    ran.push(result);
    show(result, ran.length);
  };
  while (ran.length < names.length) {
    const follower = new Follower(add);
    const ended = await boot(names.slice(ran.length), (bytes, stream) => follower.take(bytes, stream));
    kernel ??= follower.kernel;
    if (ran.length === names.length) break;
    const { running } = follower;
    if (!running) throw new Stop(neverBegan(id, ended, follower.other));
    add({
      name: running.name,
      verdict: 'crash',
      seconds: running.seconds(),
      said: `the machine died: ${ended.problem}`,
    });
    if (ended.detail) say(ended.detail);
  }
  return { kernel, ran };
}

function neverBegan(id, { problem, detail }, other) {
  return [`selftests: machine ${id} could not run them`, problem, detail, ...other].filter(Boolean).join('\n');
}
