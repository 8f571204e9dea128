// The parts a machine boots from, each verified against what was noted when it was put into the cache.
import { join } from 'node:path';
import { LAB_FAILED } from './report.mjs';
import { Stop } from '../../scripts/lib/say.mjs';
import { labKernel } from '../kernel/build.mjs';
import { hostArch } from '../machines.mjs';
import { verifyPart } from './store.mjs';

/** `{ kernel, modules, busybox, rootImage }`: paths. The lab's own kernel has no modules, the host's processor no image. */
export async function machineParts({ id, arch, kernel }) {
  const part = name => verifyPart(name, id);
  const tools = await part(`tools/${arch}`);
  const root = arch === hostArch() ? undefined : await part(`roots/${arch}`);
  return {
    ...(kernel.kind === 'lab' ? await ownKernel(part) : await debianKernel(part, arch, kernel.series)),
    busybox: join(tools, 'busybox'),
    rootImage: root && join(root, 'root.ext4'),
  };
}

async function debianKernel(part, arch, series) {
  const folder = await part(`kernels/${arch}-${series}`);
  return { kernel: join(folder, 'kernel'), modules: join(folder, 'modules.cpio.gz') };
}

/** One that was named is taken as it is: its capabilities are checked when it has booted. */
async function ownKernel(part) {
  const found = labKernel();
  if (found.state !== 'ready') throw new Stop(`lab: ${found.why}. Build it: npm run lab -- prepare lab`, LAB_FAILED);
  if (found.part) await part(found.part);
  return { kernel: found.path };
}
