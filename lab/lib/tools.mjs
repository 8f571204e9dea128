// The programs and headers that building a kernel or its selftests takes, and Debian's packages of them.
import { existsSync } from 'node:fs';
import { output } from '../../scripts/lib/run.mjs';
import { installPackages } from '../../scripts/lib/system.mjs';

/** Each with the package that has it, and how to see that it is there. */
const TOOLS = [
  { package: 'make', there: () => answers('make', '--version') },
  { package: 'gcc', there: () => answers('gcc', '--version') },
  { package: 'libc6-dev', there: () => existsSync('/usr/include/stdlib.h') },
  { package: 'patch', there: () => answers('patch', '--version') },
  { package: 'xz-utils', there: () => answers('xz', '--version') },
  { package: 'flex', there: () => answers('flex', '--version') },
  { package: 'bison', there: () => answers('bison', '--version') },
  { package: 'bc', there: () => answers('bc', '--version') },
  { package: 'perl', there: () => answers('perl', '--version') },
  { package: 'libelf-dev', there: () => existsSync('/usr/include/libelf.h') },
  { package: 'libssl-dev', there: () => existsSync('/usr/include/openssl/ssl.h') },
];
/** What the selftests do without: their headers and programs need no kernel configuration. */
const KERNEL_ONLY = new Set(['flex', 'bison', 'bc', 'libelf-dev', 'libssl-dev']);

export const KERNEL_TOOLS = TOOLS;
export const SELFTEST_TOOLS = TOOLS.filter(tool => !KERNEL_ONLY.has(tool.package));

function answers(command, argument) {
  return output(command, [argument]) !== undefined;
}

/** Debian's packages of those `tools` that are not there. */
export function missingPackages(tools) {
  return tools.filter(tool => !tool.there()).map(tool => tool.package);
}

/** Sees to it that all `tools` are there; a `Stop` with the command where they may not be installed. */
export async function needTools(tools, purpose) {
  const missing = missingPackages(tools);
  if (missing.length > 0) await installPackages(missing, `${purpose} takes ${missing.join(', ')}`);
}
