// Progress of something long: on a terminal one line that is written over, elsewhere a line every ten seconds.
import { say } from '../../scripts/lib/say.mjs';

const EVERY_MS = { terminal: 1000, log: 10_000 };

const two = number => String(number).padStart(2, '0');

/** `12:03` or `1:02:03`. */
export function clock(seconds) {
  const whole = Math.floor(seconds);
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  return hours > 0 ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}

/** `lab kernel: 431 of about 1430 objects (3:20)`; a total that turned out too small is left out. */
export function progressLine(what, done, about, unit, seconds) {
  const count = done <= about ? `${done} of about ${about} ${unit}` : `${done} ${unit}`;
  return `${what}: ${count} (${clock(seconds)})`;
}

/** What `withLock` calls once, where another process has the lock. */
export function waitingFor(what) {
  return () => say(`lab: waiting for another process that ${what}`);
}

/** Shows what `line()` gives, as often as is useful, until `end()`. */
export class Progress {
  #line;
  #stream;
  #timer;
  #shown = '';

  constructor(line, stream = process.stderr) {
    this.#line = line;
    this.#stream = stream;
    this.#timer = setInterval(() => this.#show(), stream.isTTY ? EVERY_MS.terminal : EVERY_MS.log).unref();
  }

  #show() {
    const line = this.#line();
    if (line === this.#shown) return;
    this.#shown = line;
    this.#stream.write(this.#stream.isTTY ? `\r\x1b[K${line}` : `${line}\n`);
  }

  /** Shows the last state and leaves the line. */
  end() {
    clearInterval(this.#timer);
    this.#show();
    if (this.#stream.isTTY) this.#stream.write('\n');
  }
}
