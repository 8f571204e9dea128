// A program in a session of its own, ended with every process of that session. A process group is not enough: the
// kernel's test harness gives each of its children a group of its own.
import { spawn } from 'node:child_process';
import { readFileSync, readdirSync } from 'node:fs';
import { constants } from 'node:os';

const sessions = new Set();
let guarded = false;

/** Runs a program: `{ status, signal, timedOut, lines }`, `lines` being the end of what it said. */
export function runSession(command, { cwd, timeoutMs, keep = 2000 }) {
  guard();
  const child = spawn(command, [], { cwd, stdio: ['ignore', 'pipe', 'pipe'], detached: true }); // setsid
  if (child.pid) sessions.add(child.pid);
  const text = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr'])
    child[name].setEncoding('utf8').on('data', more => (text[name] = (text[name] + more).slice(-200 * keep)));
  return new Promise(settle => {
    let timedOut = false;
    const timer = setTimeout(() => ((timedOut = true), endSession(child.pid)), timeoutMs);
    const end = (status, signal) => {
      clearTimeout(timer);
      sessions.delete(child.pid);
      const lines = [text.stdout, text.stderr].flatMap(all => all.split('\n').slice(-keep));
      settle({ status, signal, timedOut, lines });
    };
    child.once('error', error => {
      text.stderr += `${command}: ${error.message}`;
      if (!child.pid) end(null, null); // else it runs, and 'close' follows
    });
    child.once('exit', () => endSession(child.pid)); // what it left behind would keep the pipes open
    child.once('close', end);
  });
}

/** Whatever ends this program ends them; a signal alone would end it without its exit handlers. */
function guard() {
  if (guarded) return;
  guarded = true;
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'])
    process.on(signal, () => process.exit(128 + constants.signals[signal]));
  process.on('exit', () => {
    for (const session of sessions) endSession(session);
  });
}

/** Kills all processes of a session, and those that they start meanwhile. */
function endSession(session) {
  const killed = new Set(); // each is signalled once: one that waits in the kernel dies when it returns
  for (let members; (members = living(session).filter(pid => !killed.has(pid))).length > 0;) {
    for (const pid of members) {
      killed.add(pid);
      kill(pid);
    }
  }
}

/** The processes of a session that are no zombies. */
function living(session) {
  return readdirSync('/proc')
    .filter(name => /^\d+$/.test(name))
    .map(Number)
    .filter(pid => sessionOf(pid) === session);
}

function kill(pid) {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    if (error.code !== 'ESRCH') throw error;
  }
}

/** The session of a process, from the sixth field of its stat; undefined where it is gone or a zombie. */
function sessionOf(pid) {
  try {
    return parseSession(readFileSync(`/proc/${pid}/stat`, 'latin1'));
  } catch (error) {
    if (error.code === 'ENOENT' || error.code === 'ESRCH') return undefined;
    throw error;
  }
}

/** `PID (NAME) STATE PPID GROUP SESSION …`; a name may hold spaces and brackets. */
export function parseSession(stat) {
  const [state, , , session] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return state === 'Z' || state === 'X' ? undefined : Number(session);
}
