/** An installation of our making: the facade's sources in a folder of their own, with packages beside or without. */

import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { path } from './child.ts';

/** A folder with `ts/` and `package.json`, and with `files` by path and content; ended by `using`. */
export function installation(files: Readonly<Record<string, string>> = {}): { folder: string } & Disposable {
  const folder = mkdtempSync(join(tmpdir(), 'typevisor-test-'));
  cpSync(path('ts'), join(folder, 'ts'), { recursive: true });
  const manifest = { name: 'typevisor', version: '0.1.0', type: 'module' };
  for (const [name, content] of Object.entries({ 'package.json': JSON.stringify(manifest), ...files })) {
    mkdirSync(dirname(join(folder, name)), { recursive: true });
    writeFileSync(join(folder, name), content);
  }
  return { folder, [Symbol.dispose]: () => rmSync(folder, { recursive: true }) };
}

/** The optional package of this platform. */
export const PACKAGE: string = `typevisor-linux-${process.arch}-${isGlibc() ? 'gnu' : 'musl'}`;

/** A package that can be found, of that version, with `main` as its addon. */
export function packageFiles(version: string, main: string): Record<string, string> {
  return {
    [`node_modules/${PACKAGE}/package.json`]: JSON.stringify({ name: PACKAGE, version, main: 'addon.cjs' }),
    [`node_modules/${PACKAGE}/addon.cjs`]: main,
  };
}

function isGlibc(): boolean {
  return JSON.stringify(process.report.getReport()).includes('glibcVersionRuntime');
}
