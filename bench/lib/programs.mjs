// The programs that are measured: from what bench/lib/list.mjs says of one to its command line, built if need be.
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { ROOT } from '../../scripts/lib/paths.mjs';
import { output, run } from '../../scripts/lib/run.mjs';
import { Stop, say } from '../../scripts/lib/say.mjs';
import { Stamp, fingerprint } from '../../scripts/lib/stale.mjs';
import { cargoEnv, compiler } from '../../scripts/lib/toolchain.mjs';

const FLAGS = ['-O2', '-std=gnu11', '-pthread', '-Wall', '-Wextra', '-Werror'];
const HEADERS = ['bench/c/child.h', 'bench/c/guest.h'];

/** The command line of `{ c: NAME }`, `{ node: NAME }` or `{ rust: true }`, each with its `args`. */
export async function command({ c, node, args }) {
  if (c) return [await reference(c), ...args];
  if (node) return [process.execPath, join(ROOT, `bench/node/${node}.mjs`), ...args];
  return [await rustProgram(), ...args];
}

/** The path of `bench/c/NAME.c`'s program, built again when its source or the compiler changed. */
async function reference(name) {
  const cc = await compiler();
  const source = `bench/c/${name}.c`;
  const program = `target/bench/${name}`;
  const inputs = fingerprint([source, ...HEADERS], `${output(cc, ['--version'])} ${FLAGS.join(' ')}`);
  await build(`bench-${name}`, program, inputs, cc, [...FLAGS, '-o', program, source]);
  return join(ROOT, program);
}

/** The path of bench/rust's program, built as the addon is: the core is then the same code in both. */
async function rustProgram() {
  const program = 'target/addon/typevisor-bench';
  const inputs = fingerprint(['bench/rust', 'crates/core', 'Cargo.toml', 'Cargo.lock']);
  const args = ['build', '--quiet', '--package=typevisor-bench', '--profile=addon', '--target-dir=target'];
  await build('bench-rust', program, inputs, 'cargo', args, cargoEnv());
  return join(ROOT, program);
}

async function build(name, program, inputs, builder, args, env) {
  const stamp = new Stamp(name, program);
  if (stamp.isFresh(inputs)) return;
  say(`bench: building ${program}`);
  mkdirSync(join(ROOT, 'target/bench'), { recursive: true });
  const { status } = await run(builder, args, { env });
  if (status !== 0) throw new Stop(`bench: ${program} cannot be built`);
  stamp.write(inputs);
}
