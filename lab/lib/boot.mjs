// One run of one machine: what it is given, the emulator, its output as it comes, its end.
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { ROOT } from '../../scripts/lib/paths.mjs';
import { run } from '../../scripts/lib/run.mjs';
import { Stop } from '../../scripts/lib/say.mjs';
import { hostArch } from '../machines.mjs';
import { ASKED, remember, unmetPromises } from './has.mjs';
import { holdProgram } from './hold.mjs';
import { commandScript, writeInitrd } from './initrd.mjs';
import { machineParts } from './parts.mjs';
import { emulator, qemuCommand } from './qemu.mjs';
import { LAB_FAILED, lastLines, parseHas, parseStatus, verdict } from './report.mjs';

/** Seconds to the command's start: 3 to 6 on a quiet machine. */
const BOOT_LIMIT_S = 150;
/** Seconds from the command's end to the machine's. */
const OFF_LIMIT_S = 20;
const POLL_MS = 50;
/** What the environment here hands on to the command there. */
const HANDED_ON = /^(TYPEVISOR_(?!LAB|REQUIRE|MACHINE|NATIVE)\w+|NO_COLOR|FORCE_COLOR|CI)$/;
/** Under emulation everything is slow: loops that only need many rounds take a fiftieth of them. */
const TEST_SCALE = '0.02';

/**
 * Runs `words` (a command and its arguments) in a machine that is ready, in the repository as the machine sees it.
 * Changes to files stay there, but for the folder `$TYPEVISOR_LAB_FILES`. Gives `{ code, problem, detail, bootS, commandS, files }` as
 * `verdict` does. `onOutput(bytes, 'stdout' | 'stderr')` gets its output as it comes.
 */
export async function runInMachine(machine, words, options = {}) {
  const { timeoutS = 600, memoryMib = 3072, cpus = 2, env = {}, folder = ROOT, onOutput = () => {} } = options;
  const parts = await machineParts(machine);
  const work = workFolder();
  const files = filesFolder(machine);
  try {
    const ports = Object.fromEntries(['console', 'out', 'err', 'status'].map(name => [name, join(work, name)]));
    for (const file of Object.values(ports)) writeFileSync(file, '');
    const { root, shares } = whatItSees(machine, parts, files);
    const initrd = writeInitrd(
      work,
      { ...parts, hold: await holdProgram(machine.arch) },
      {
        env: { ROOT: root.image ? 'ext4' : '9p', CAPABILITIES: ASKED.map(({ number }) => number).join(' ') },
        shares,
        command: commandScript(words, folder, { ...environment(machine, root, files), ...env }),
      },
    );
    const { kernel } = parts;
    const command = qemuCommand({ arch: machine.arch, kernel, initrd, root, shares, ports, memoryMib, cpus });
    const ended = await drive(command, ports, { machine, timeoutS, onOutput });
    return { ...ended, files };
  } finally {
    removeFolders();
  }
}

/** A folder for one run, named after this process: those of processes that were killed go with the next run. */
function workFolder() {
  const all = join(ROOT, 'target/lab/work');
  mkdirSync(all, { recursive: true });
  for (const name of readdirSync(all).filter(one => !existsSync(`/proc/${one.split('-')[0]}`)))
    rmSync(join(all, name), { recursive: true, force: true });
  const folder = mkdtempSync(join(all, `${process.pid}-`));
  if (folders.size === 0) process.once('exit', removeFolders); // interrupted or not
  folders.add(folder);
  return folder;
}

const folders = new Set();

function removeFolders() {
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
}

/** Where files come back: the same path there and here. */
function filesFolder({ id }) {
  const folder = join(ROOT, 'target/lab/files', id);
  rmSync(folder, { recursive: true, force: true }); // an old result must not pass for a new one
  mkdirSync(folder, { recursive: true });
  return folder;
}

/** With this machine's processor it sees this machine's whole root, else a root image and the repository. */
function whatItSees({ arch }, { rootImage }, files) {
  const back = { path: files, mode: 'rw' };
  if (arch === hostArch()) return { root: { folder: '/' }, shares: [back] };
  return { root: { image: rootImage }, shares: [{ path: ROOT, mode: 'over' }, back] };
}

function environment({ id }, root, files) {
  const handedOn = Object.entries(process.env).filter(([name]) => HANDED_ON.test(name));
  const system = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
  const own = root.image ? system : `${dirname(process.execPath)}:${process.env.PATH ?? system}`;
  return {
    TYPEVISOR_TEST_SCALE: TEST_SCALE,
    ...Object.fromEntries(handedOn),
    PATH: `${join(ROOT, 'node_modules/.bin')}:${own}`,
    HOME: '/root',
    TMPDIR: '/tmp',
    LANG: 'C.UTF-8',
    TYPEVISOR_LAB_MACHINE: id,
    TYPEVISOR_LAB_FILES: files,
  };
}

/** Runs the emulator to its end, or to a limit. */
async function drive({ command, args }, ports, { machine, timeoutS, onOutput }) {
  const stop = new AbortController();
  const watch = new Watch(ports, onOutput);
  let stopped;
  const limit = (what, seconds) => setTimeout(() => ((stopped = what), stop.abort()), seconds * 1000);
  let timer = limit('boot', BOOT_LIMIT_S);
  let refused;
  watch.onHas = has => {
    refused = unmetPromises(machine, has);
    if (refused) stop.abort();
    else remember(machine, has);
  };
  watch.onStart = () => {
    clearTimeout(timer);
    timer = limit('command', timeoutS);
  };
  // All has been said: a machine that does not switch itself off is.
  watch.onEnd = () => {
    clearTimeout(timer);
    timer = setTimeout(() => stop.abort(), OFF_LIMIT_S * 1000);
  };
  const poll = setInterval(() => watch.look(), POLL_MS);
  const { status, tail } = await run(command, args, { signal: stop.signal, onLine: () => {} });
  clearInterval(poll);
  watch.look();
  watch.close();
  clearTimeout(timer); // last: a look may have set it
  if (status === 127 || tail.some(line => line.includes('failed to execute')))
    throw new Stop(`lab: ${emulator(machine.arch)} cannot be run: ${tail.at(-1) ?? ''}`, LAB_FAILED);
  if (refused) return { code: LAB_FAILED, problem: refused };
  const texts = { status: readFileSync(ports.status, 'utf8'), console: readFileSync(ports.console, 'utf8') };
  const limitS = stopped === 'boot' ? BOOT_LIMIT_S : timeoutS;
  const { started, end } = parseStatus(texts.status);
  const times = { bootS: started, commandS: end && end.at - started };
  return { ...verdict({ ...texts, stopped, limitS, emulatorError: lastLines(tail.join('\n'), 5) }), ...times };
}

/** Follows the files that a machine's ports write to. */
class Watch {
  #ports;
  #streams;
  #onOutput;
  #buffer = Buffer.alloc(1 << 16);
  #said = false;
  #started = false;
  #ended = false;
  onHas;
  onStart;
  onEnd;

  constructor(ports, onOutput) {
    this.#ports = ports;
    this.#onOutput = onOutput;
    this.#streams = [
      ['stdout', ports.out],
      ['stderr', ports.err],
    ].map(([name, path]) => ({ name, fd: openSync(path, 'r') }));
  }

  look() {
    if (!this.#ended) this.#status();
    for (const { name, fd } of this.#streams) {
      for (;;) {
        const count = readSync(fd, this.#buffer, 0, this.#buffer.length, null);
        if (count === 0) break;
        this.#onOutput(Buffer.from(this.#buffer.subarray(0, count)), name);
      }
    }
  }

  #status() {
    const { has, started, end } = parseStatus(readFileSync(this.#ports.status, 'utf8'));
    if (has !== undefined && !this.#said) {
      this.#said = true;
      this.onHas(parseHas(has));
    }
    if (started !== undefined && !this.#started) {
      this.#started = true;
      this.onStart();
    }
    if (end !== undefined && !this.#ended) {
      this.#ended = true;
      this.onEnd();
    }
  }

  close() {
    for (const { fd } of this.#streams) closeSync(fd);
  }
}
