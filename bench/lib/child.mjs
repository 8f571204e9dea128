// Programs that are measured: long-lived children that time themselves, so that neither their start nor this process is
// in the figure.
//
// The protocol is lines. A child says `ready`; `run COUNT` on its stdin is answered by `ns TIME`, nanoseconds per operation,
// with more behind it where there is more to say: `exits=N`, exits per operation, where it counts them; `p99=TIME`, which 99 of
// 100 operations do not exceed, where it times each. TIME is the one in the middle then.
// What goes wrong is `failed WHY`. It ends when its stdin does, whatever became of us.
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { Stop } from '../../scripts/lib/say.mjs';

export class Child {
  #name;
  #process;
  #lines;
  /** What the child said besides of the last batch: `{ exits, p99 }`, or what there is of them. */
  more = {};

  /** Starts `command`, an array, and waits until it is ready. */
  static async start(name, command) {
    const child = new Child(name, command);
    await child.#expect('ready');
    return child;
  }

  constructor(name, [program, ...args]) {
    this.#name = name;
    this.#process = spawn(program, args, { stdio: ['pipe', 'pipe', 'inherit'] });
    this.#process.on('error', () => undefined); // its output ends as well
    this.#process.stdin.on('error', () => undefined);
    this.#lines = createInterface({ input: this.#process.stdout })[Symbol.asyncIterator]();
  }

  get pid() {
    return this.#process.pid;
  }

  /** One batch of `count` operations: nanoseconds for each. */
  async run(count) {
    this.#process.stdin.write(`run ${count}\n`);
    const [ns, ...more] = (await this.#expect('ns')).split(' ');
    const named = more.map(text => text.split('='));
    this.more = Object.fromEntries(named.map(([name, value]) => [name, Number(value)]));
    return Number(ns);
  }

  /** Ends it and waits until it has ended. */
  async close() {
    const ended = new Promise(resolve => {
      if (this.#process.exitCode === null && this.#process.signalCode === null) this.#process.once('exit', resolve);
      else resolve();
    });
    this.#process.stdin.end();
    await ended;
  }

  /** The rest of the next line, which has to begin with `word`. */
  async #expect(word) {
    const { value: line, done } = await this.#lines.next();
    if (done) throw new Stop(`bench: ${this.#name} ended unexpectedly`);
    const [, first, rest] = /^(\S*) ?(.*)$/.exec(line);
    if (first !== word) throw new Stop(`bench: ${this.#name} said: ${line}`);
    return rest;
  }
}
