#!/usr/bin/env node
// npm run lab -- [--kernel NAME] [--arch x86_64|aarch64] [OPTIONS] -- COMMAND…
// npm run lab -- list [--json]
// npm run lab -- prepare [MACHINE…] [--again]
// npm run lab -- selftests [--help]
//
// Runs a command of the repository in a machine of the lab: real KVM of another kernel or processor, in an emulated
// machine (QEMU, no KVM needed here). A machine that is not ready is made so first.
//
// The command sees the repository at its own path, and its output and exit code become those of this program. What it
// changes stays in the machine, but for the folder $TYPEVISOR_LAB_FILES (target/lab/files/MACHINE, emptied before each
// run): that comes back, also from a machine that died. Machines with this processor see all of this machine's files, the others a small root
// with Node.js 24, and the repository.
//
//   --kernel NAME       lab, 5.10, 6.1, 6.12 or newest, or a machine's id; without it the one with most features
//   --arch ARCH         x86_64 or aarch64; without it this machine's
//   --timeout SECONDS   ends a command that hangs, with its machine (600)
//   --memory MIB        the machine's memory (3072)
//   --cpus N            its processors (2)
//   --verbose           says when it booted, and how long the command took
//
//   list                the machines, what each has, and whether it is ready here
//   prepare             makes machines ready (all, or those named): downloads, verified and cached; nothing needs the
//                       network afterwards
//   selftests           the kernel's own KVM selftests, here and in the lab
//
// Exit codes: the command's own; 124 where its time was up; 125 where the lab failed (the machine's last words are on
// stderr); 127 where the command does not exist; 2 for arguments that make no sense.
import { parseArgs } from 'node:util';
import { ROOT, shown } from '../scripts/lib/paths.mjs';
import { onInterrupt } from '../scripts/lib/run.mjs';
import { Stop, main, say } from '../scripts/lib/say.mjs';
import { runInMachine } from './lib/boot.mjs';
import { list } from './lib/list.mjs';
import { machineState, prepare } from './lib/prepare.mjs';
import { LAB_FAILED } from './lib/report.mjs';
import { buildFor } from './suite/build.mjs';
import { MACHINES, byId, choose } from './machines.mjs';

const COMMANDS = { list: listMachines, prepare: prepareMachines, selftests: kernelSelftests };

const NO_COMMAND = new Stop(
  'lab: say what to run behind a second --: npm run lab -- [OPTIONS] -- COMMAND… (see --help)',
  2,
);

// The selftests have a help of their own.
const helpFor = process.argv[2] === 'selftests' ? new URL('selftests/main.mjs', import.meta.url) : import.meta.url;

await main(helpFor, args => {
  const [first] = args;
  if (first !== undefined && Object.hasOwn(COMMANDS, first)) return COMMANDS[first](args.slice(1));
  return runCommand(args);
});

/** `parseArgs` with a message in the house's words. */
function parse(config) {
  try {
    return parseArgs(config);
  } catch (error) {
    throw new Stop(`lab: ${error.message} (--help says more)`, 2);
  }
}

async function runCommand(args) {
  const end = args.indexOf('--');
  const words = end < 0 ? [] : args.slice(end + 1);
  if (words.length === 0) throw NO_COMMAND;
  const text = { type: 'string' };
  const options = { kernel: text, arch: text, timeout: text, memory: text, cpus: text, verbose: { type: 'boolean' } };
  const { values, positionals } = parse({ args: args.slice(0, end), options, allowPositionals: true });
  if (positionals.length > 0) throw NO_COMMAND;
  const machine = choose(values);
  const limits = {
    timeoutS: whole(values, 'timeout', 600),
    memoryMib: whole(values, 'memory', 3072),
    cpus: whole(values, 'cpus', 2),
  };
  onInterrupt('lab: interrupted; no machine is left behind');
  try {
    return await inMachine(machine, words, limits, values.verbose);
  } catch (error) {
    // Not the command's exit code: that of a lab that could not do it.
    if (error instanceof Stop && error.exitCode === 1) error.exitCode = LAB_FAILED;
    throw error;
  }
}

/** Makes it ready, builds what the repository's programs need there, runs the command. */
async function inMachine(machine, words, limits, verbose) {
  if (!machineState(machine).ready) await prepare([machine]);
  await buildFor(machine.arch);
  if (process.stderr.isTTY) say(`lab: booting machine ${machine.id}`);
  const ended = await runInMachine(machine, words, { ...limits, folder: here(), onOutput: passOn });
  explain(machine, ended, verbose);
  return ended.code;
}

/** Output goes on as it is. */
function passOn(bytes, stream) {
  process[stream].write(bytes);
}

/** The folder in which the person stands, where that is in the repository. */
function here() {
  const folder = process.env.INIT_CWD ?? process.cwd();
  return folder === ROOT || folder.startsWith(`${ROOT}/`) ? folder : ROOT;
}

function whole(values, name, otherwise) {
  const text = values[name];
  if (text === undefined) return otherwise;
  if (!/^[1-9]\d{0,6}$/.test(text)) throw new Stop(`lab: --${name} takes a whole number from 1 on, not ${text}`, 2);
  return Number(text);
}

function explain({ id }, { problem, detail, bootS, commandS, files }, verbose) {
  if (detail) say(detail);
  if (problem) say(`lab: machine ${id}: ${problem}`);
  if (verbose && commandS !== undefined)
    say(`lab: machine ${id}: booted in ${bootS} s, the command took ${commandS.toFixed(1)} s; files: ${shown(files)}`);
}

function listMachines(args) {
  const { values } = parse({ args, options: { json: { type: 'boolean' } } });
  return list(values);
}

async function prepareMachines(args) {
  const { values, positionals } = parse({ args, options: { again: { type: 'boolean' } }, allowPositionals: true });
  const machines = positionals.length > 0 ? positionals.map(byId) : MACHINES;
  await prepare(machines, values);
  for (const machine of machines) {
    const ended = await runInMachine(machine, ['uname', '-r'], { timeoutS: 60 });
    explain(machine, ended, false);
    if (ended.code !== 0) return ended.code;
    say(`lab: ${machine.id}: ready, boots in ${ended.bootS} s`);
  }
  return 0;
}

async function kernelSelftests(args) {
  const { selftests } = await import('./selftests/main.mjs');
  return selftests(args);
}
