// One build of the core's tests, whole or broken, and its tests one by one: here, or in a machine of the lab.
import { runInMachine } from '../../lab/lib/boot.mjs';
import { machineState } from '../../lab/lib/prepare.mjs';
import { TIMED_OUT } from '../../lab/lib/report.mjs';
import { byId, hostArch } from '../../lab/machines.mjs';
import { buildKvmTests, whyNotBuilt } from '../../lab/suite/build.mjs';
import { FOLDER, TARGETS, colourOf } from './broken.mjs';
import { kvmProblem } from './kvm.mjs';
import { run } from './run.mjs';
import { Stop, say } from './say.mjs';
import { cargoEnv } from './toolchain.mjs';

/** The profile of the lab's programs, whose dependencies are optimized; ours is built once a rule, and needs not be. */
const BUILD = ['test', '--no-run', '--profile', 'lab', '--package', 'typevisor', ...quickly('typevisor')];
/** A machine of the lab has to do it in this many times as long. */
const LAB_FACTOR = 5;
const BUILD_TIMEOUT_MS = 30 * 60_000;

/** The test programs of one build, each made when the first of its tests is to run. `env` is what breaks it. */
export class Builds {
  #env;
  #programs = new Map();

  constructor(env = {}) {
    this.#env = { CARGO_INCREMENTAL: '0', ...env };
  }

  /** Runs one demanded test: `{ colour, how, ms, lines }`. */
  async runOne({ target, test, machine: id }, limitMs) {
    const machine = id === undefined || isLikeHere(byId(id)) ? undefined : byId(id);
    const why = machine ? whyNotReady(machine) : target === 'kvm' && kvmProblem();
    if (why) return { ...missing(why, machine), ms: 0, lines: [] };
    const program = await this.#program(target, machine);
    const words = [program, '--exact', '--test-threads=1', test];
    const started = performance.now();
    const { end, lines } = machine ? await runThere(machine, words, limitMs) : await runHere(words, limitMs);
    return { ...colourOf(end, lines), ms: performance.now() - started, lines };
  }

  #program(target, machine) {
    const key = `${target} ${machine?.arch ?? 'here'}`;
    if (!this.#programs.has(key))
      this.#programs.set(key, machine ? this.#buildThere(machine) : this.#buildHere(target));
    return this.#programs.get(key);
  }

  async #buildHere(target) {
    const { args, kind, env, folder } = TARGETS[target];
    const format = '--message-format=json-render-diagnostics';
    const lines = [];
    const { status, tail } = await run('cargo', [...BUILD, ...args, '--target-dir', folder, format], {
      env: { ...cargoEnv(), CARGO_TERM_COLOR: 'never', ...env, ...this.#env },
      onLine: (line, stream) => stream === 'stdout' && line.startsWith('{') && lines.push(JSON.parse(line)),
      timeoutMs: BUILD_TIMEOUT_MS,
    });
    const made = lines.find(({ target: of, executable }) => executable && of.kind.includes(kind))?.executable;
    if (status === 0 && made) return made;
    for (const line of tail.filter(text => !text.startsWith('{'))) say(line);
    throw new Stop(`test:broken: the ${target} tests could not be built`);
  }

  #buildThere({ arch }) {
    return buildKvmTests(arch, { CARGO_TARGET_DIR: FOLDER, ...this.#env });
  }
}

function quickly(crate) {
  return ['opt-level=0', 'debug=false'].flatMap(what => ['--config', `profile.lab.package.${crate}.${what}`]);
}

/** A machine of another processor than this one's stands for that processor, and needs no lab where that is here. */
function isLikeHere({ arch }) {
  return arch === 'aarch64' && arch === hostArch();
}

function whyNotReady(machine) {
  const why = whyNotBuilt(machine.arch);
  if (why) return why;
  const { ready, why: reason } = machineState(machine);
  return ready
    ? undefined
    : `needs machine ${machine.id} of the lab, where ${reason}: npm run lab -- prepare ${machine.id}`;
}

/** What cannot run here: a skip, but a failure where the lab has to be there. */
function missing(why, machine) {
  const required = machine && process.env.TYPEVISOR_REQUIRE === 'lab';
  return { colour: required ? 'lost' : 'none', how: why };
}

async function runHere([program, ...args], timeoutMs) {
  const lines = [];
  const end = await run(program, args, { onLine: line => lines.push(line), timeoutMs });
  return { end, lines };
}

/** An emulated kernel that dies says nothing of a test: it gets a second try (docs/design/lab.md). */
async function runThere(machine, words, limitMs, tries = 2) {
  const parts = [];
  const { code, problem, detail, died } = await runInMachine(machine, words, {
    timeoutS: Math.ceil((LAB_FACTOR * limitMs) / 1000),
    onOutput: bytes => parts.push(bytes),
  });
  if (died && tries > 1) return runThere(machine, words, limitMs, tries - 1);
  const lines = Buffer.concat(parts).toString().split('\n');
  if (problem) lines.push(problem, ...(detail ?? '').split('\n'));
  const timedOut = problem !== undefined && code === TIMED_OUT;
  return { end: { status: code, signal: null, timedOut }, lines };
}
