// System packages: installed where this script may, else named with the exact command (docs: CONTRIBUTING, "Set-up").
import { existsSync, readdirSync } from 'node:fs';
import { output, run } from './run.mjs';
import { Stop, say } from './say.mjs';

/** Whether this is Debian or a child of it, with apt to hand. */
export function hasApt() {
  return output('apt-get', ['--version']) !== undefined;
}

/** Whether system packages may be installed: as root, with apt, and not switched off. */
export function mayInstall(env = process.env) {
  return env.TYPEVISOR_SETUP !== 'off' && process.getuid() === 0 && hasApt();
}

/** The command a person would type to install `packages`. */
export function installCommand(packages) {
  const sudo = process.getuid() === 0 ? '' : 'sudo ';
  return `${sudo}apt-get install --no-install-recommends ${packages.join(' ')}`;
}

/** Installs `packages`, and says so; throws a `Stop` with the command where that is not possible. */
export async function installPackages(packages, why) {
  if (!mayInstall()) throw new Stop(`${why}. Install it: ${installCommand(packages)}`);
  say(`set-up: ${why}; installing ${packages.join(', ')} (TYPEVISOR_SETUP=off prevents this)`);
  const env = { DEBIAN_FRONTEND: 'noninteractive' };
  await refreshLists(env);
  const { status } = await run('apt-get', ['install', '-y', '-q', '--no-install-recommends', ...packages], { env });
  if (status !== 0) throw new Stop(`${why}, and installing it failed. Try: ${installCommand(packages)}`);
}

/** `apt-get update`, once, where no package lists are. */
async function refreshLists(env) {
  const lists = '/var/lib/apt/lists';
  if (existsSync(lists) && readdirSync(lists).some(name => name.includes('_Packages'))) return;
  await run('apt-get', ['update', '-q'], { env });
}
