/** A console without KVM: the addon's side of a claim, whose guest wrote `text`, and a reader of it. */

import { ConsoleReader, toSink } from '../../ts/console.ts';
import { deliver } from '../../ts/mailbox.ts';
import type { NativeClaim, NativeClaimStats } from '../../ts/native.ts';

/** What the guest wrote is taken once. */
export class FakeConsole implements NativeClaim {
  text = '';
  released = false;

  takeBytes(): Uint8Array {
    const taken = this.text;
    this.text = '';
    return Buffer.from(taken);
  }

  takeWrites(): Float64Array {
    return new Float64Array();
  }

  look(): void {
    // a console has nothing to look for by itself
  }

  flush(): void {
    // and nothing that KVM gathers
  }

  send(): number {
    return 0;
  }

  value(): bigint {
    return 0n;
  }

  stats(): NativeClaimStats {
    return { writes: 0, exits: 0 };
  }

  kernel(): boolean {
    return false;
  }

  fd(): number {
    return -1;
  }

  release(): void {
    this.released = true;
  }
}

/** A console that is read into `sink`; `wake` is what the addon calls when there is output. */
export function fakeConsole(sink: unknown): { fake: FakeConsole; reader: ConsoleReader; wake: () => void } {
  const fake = new FakeConsole();
  let id = 0;
  const reader = new ConsoleReader(toSink(sink), given => {
    id = given;
    return fake;
  });
  return { fake, reader, wake: () => deliver(id, null, 0) };
}
