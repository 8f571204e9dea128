// The C programs beside which we measure: built into target/bench, again when their source or the compiler changed.
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { ROOT } from '../../scripts/lib/paths.mjs';
import { output, run } from '../../scripts/lib/run.mjs';
import { Stop, say } from '../../scripts/lib/say.mjs';
import { Stamp, fingerprint } from '../../scripts/lib/stale.mjs';
import { compiler } from '../../scripts/lib/toolchain.mjs';

const FLAGS = ['-O2', '-std=gnu11', '-Wall', '-Wextra', '-Werror'];

/** The path of `bench/c/NAME.c`'s program, built if need be. */
export async function reference(name) {
  const cc = await compiler();
  const source = `bench/c/${name}.c`;
  const program = `target/bench/${name}`;
  const inputs = fingerprint([source], `${output(cc, ['--version'])} ${FLAGS.join(' ')}`);
  const stamp = new Stamp(`bench-${name}`, program);
  if (!stamp.isFresh(inputs)) {
    say(`bench: building ${program}`);
    mkdirSync(join(ROOT, 'target/bench'), { recursive: true });
    const { status } = await run(cc, [...FLAGS, '-o', program, source]);
    if (status !== 0) throw new Stop(`bench: ${source} does not compile`);
    stamp.write(inputs);
  }
  return join(ROOT, program);
}
