#!/usr/bin/env node
// npm start, or node scripts/start.mjs [ARGUMENTS OF THE TOUR]
//
// Runs `typevisor tour`. Where /dev/kvm cannot be used it says so and what to do, and the guests run in the lab (an
// emulated machine with KVM) if that is ready (npm run lab -- prepare lab); else the exit code is 69.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { constants } from 'node:os';
import { runInMachine } from '../lab/lib/boot.mjs';
import { machineState } from '../lab/lib/prepare.mjs';
import { defaultMachine } from '../lab/machines.mjs';
import { kvmProblem } from './lib/kvm.mjs';
import { ROOT } from './lib/paths.mjs';
import { main, say } from './lib/say.mjs';

const PROGRAM = 'dist/cli/main.js';

await main(import.meta.url, async args => {
  const machine = defaultMachine();
  if (!kvmProblem() || !machineState(machine).ready) return here(['tour', ...args]);
  await here(['doctor'], 2); // stdout is the tour's
  say(`\n/dev/kvm cannot be used here: the tour goes on in the lab (machine ${machine.id}, emulated: much slower)\n`);
  const { code, problem, detail } = await runInMachine(machine, ['node', PROGRAM, 'tour', ...args], {
    onOutput: passOn,
  });
  if (problem) say(`${detail ?? ''}\nlab: ${problem}`);
  return code;
});

function passOn(bytes, stream) {
  process[stream].write(bytes);
}

/** Runs a command of the program with this terminal; gives its exit code. */
async function here(args, stdout = 1) {
  const child = spawn(process.execPath, [PROGRAM, ...args], { cwd: ROOT, stdio: ['inherit', stdout, 'inherit'] });
  // A terminal's Ctrl-C reaches the child by itself, and it tidies up; what is sent to this process alone is handed on.
  const handOn = signal => child.kill(signal);
  process.on('SIGINT', waitForIt);
  for (const signal of ['SIGTERM', 'SIGHUP']) process.on(signal, handOn);
  const [code, signal] = await once(child, 'close');
  process.off('SIGINT', waitForIt);
  for (const name of ['SIGTERM', 'SIGHUP']) process.off(name, handOn);
  return code ?? 128 + constants.signals[signal];
}

function waitForIt() {
  // the child's end is ours
}
