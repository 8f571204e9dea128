// Reads what lab/selftests/run.mjs prints, as it comes out of a machine that may die at any moment.
import { StringDecoder } from 'node:string_decoder';

/** Calls `onResult` for each test that ended; `running` is the one that had started and not ended. */
export class Follower {
  kernel;
  running;
  /** Lines that are not run.mjs's: the last of them say why it could not start. */
  other = [];
  #onResult;
  #now;
  #rest = { stdout: '', stderr: '' };
  /** Bytes come as they were written, which may be in the middle of a character. */
  #decoders = { stdout: new StringDecoder('utf8'), stderr: new StringDecoder('utf8') };

  constructor(onResult, now = Date.now) {
    this.#onResult = onResult;
    this.#now = now;
  }

  take(bytes, stream) {
    const lines = (this.#rest[stream] + this.#decoders[stream].write(bytes)).split('\n');
    this.#rest[stream] = lines.pop();
    for (const line of lines) this.#line(line);
  }

  #line(line) {
    const told = parsed(line);
    if (told?.kernel) this.kernel = told.kernel;
    else if (told?.start) this.#start(told.start);
    else if (told?.verdict) {
      this.running = undefined;
      this.#onResult(told);
    } else {
      this.other.push(line);
      if (this.other.length > 20) this.other.shift();
    }
  }

  #start(name) {
    const began = this.#now();
    this.running = { name, seconds: () => (this.#now() - began) / 1000 };
  }
}

function parsed(line) {
  if (!line.startsWith('{')) return undefined;
  try {
    return JSON.parse(line);
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}
