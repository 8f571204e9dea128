/** The `@example`s of the facade's comments, as one module of functions. */

import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as typevisor from '../../ts/index.ts';
import { path } from './child.ts';

/** One example, and where it stands. */
export interface Example {
  readonly where: string;
  readonly code: string;
  /** Only there; elsewhere it is held by the type check alone. Without it: on x86_64, or anywhere. */
  readonly arch: 'aarch64' | undefined;
}

/** All of them, file by file. */
export function examples(): Example[] {
  const files = readdirSync(path('ts')).filter(name => name.endsWith('.ts'));
  return files.flatMap(file => {
    const text = readFileSync(path(`ts/${file}`), 'utf8');
    return Array.from(text.matchAll(/^ *\* @example( aarch64)?\n((?: *\* .*\n)+)/gmu), match => ({
      where: `ts/${file}:${text.slice(0, match.index).split('\n').length}`,
      code: (match[2] ?? '').replaceAll(/^ *\* ?/gmu, '').replace(/^@\w+[^]*/mu, ''),
      arch: match[1] === undefined ? undefined : ('aarch64' as const),
    }));
  });
}

/** A folder with all examples in `examples.ts` and a tsconfig; ended by `using`. The module's `run()` runs them. */
export function exampleModule(): { folder: string; file: string } & Disposable {
  const folder = mkdtempSync(join(tmpdir(), 'typevisor-examples-'));
  const file = join(folder, 'examples.ts');
  const names = Object.keys(typevisor).join(', ');
  const entries = examples().map(
    ({ where, code, arch }) => `['${where}', ${runsHere(arch)}, async () => {\n${code}}],\n`,
  );
  const lines = [
    `import { ${names} } from '${path('ts/index.ts')}';\n`,
    `const examples: readonly (readonly [string, boolean, () => Promise<void>])[] = [\n${entries.join('')}];\n`,
    'for (const [where, runs, example] of examples) {\n  if (!runs) continue;\n  console.log(where);\n  await example();\n}\n',
  ];
  writeFileSync(file, lines.join(''));
  const compilerOptions = {
    typeRoots: [path('node_modules/@types')],
    rewriteRelativeImportExtensions: false, // the import of the facade is no relative one
    allowImportingTsExtensions: true,
  };
  writeFileSync(
    join(folder, 'tsconfig.json'),
    JSON.stringify({ extends: path('tsconfig.json'), compilerOptions, include: [], files: [file] }),
  );
  writeFileSync(join(folder, 'package.json'), '{ "type": "module" }');
  return { folder, file, [Symbol.dispose]: () => rmSync(folder, { recursive: true }) };
}

function runsHere(arch: Example['arch']): boolean {
  return arch === undefined || process.arch === 'arm64';
}
