// lab/hold.c, built for a machine's processor: static, so that it runs before any root is mounted.
import { mkdirSync, renameSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { withLock } from '../../scripts/lib/lock.mjs';
import { ROOT } from '../../scripts/lib/paths.mjs';
import { output, run } from '../../scripts/lib/run.mjs';
import { Stop, say } from '../../scripts/lib/say.mjs';
import { Stamp, fingerprint } from '../../scripts/lib/stale.mjs';
import { installPackages } from '../../scripts/lib/system.mjs';
import { compiler } from '../../scripts/lib/toolchain.mjs';
import { hostArch } from '../machines.mjs';

const SOURCE = 'lab/hold.c';
/** The compiler's name for each processor, and Debian's package of it, with the C library to link with. */
const CROSS = {
  x86_64: { command: 'x86_64-linux-gnu-gcc', packages: ['gcc-x86-64-linux-gnu', 'libc6-dev-amd64-cross'] },
  aarch64: { command: 'aarch64-linux-gnu-gcc', packages: ['gcc-aarch64-linux-gnu', 'libc6-dev-arm64-cross'] },
};

/** A C compiler for a processor; installs one where that is possible. */
export async function compilerFor(arch) {
  if (arch === hostArch()) return compiler();
  const { command, packages } = CROSS[arch];
  if (output(command, ['--version']) === undefined)
    await installPackages(packages, `a C compiler for ${arch} is needed`);
  return command;
}

/** The program's path. */
export async function holdProgram(arch) {
  const file = `target/lab/hold-${arch}`;
  const stamp = new Stamp(`lab-hold-${arch}`, file);
  const inputs = fingerprint([SOURCE]);
  const inTurn = () => say(`lab: waiting for another build of ${SOURCE}`);
  return withLock(`${ROOT} ${file}`, inTurn, () => build(arch, file, stamp, inputs));
}

/** One process at a time, and in one step: another may be about to start it. */
async function build(arch, file, stamp, inputs) {
  if (!stamp.isFresh(inputs)) {
    mkdirSync(dirname(join(ROOT, file)), { recursive: true });
    const warnings = ['-Wall', '-Wextra', '-Werror'];
    const { status } = await run(await compilerFor(arch), [...warnings, '-static', '-Os', '-o', `${file}.new`, SOURCE]);
    if (status !== 0) throw new Stop(`lab: ${SOURCE} could not be built for ${arch}`);
    renameSync(join(ROOT, `${file}.new`), join(ROOT, file));
    stamp.write(inputs);
  }
  return join(ROOT, file);
}
