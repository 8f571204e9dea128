/** The `@example`s of the facade's comments, as one module of functions. */

import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as typevisor from '../../ts/index.ts';
import { EXTENSION, path } from './child.ts';

/** One example, and where it stands. */
export interface Example {
  readonly where: string;
  readonly code: string;
  /** It runs there, and elsewhere the type check alone holds it. Those without it run on x86_64. */
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

/** All of them as one program, which imports the facade from `facade`, runs those for its processor, and counts them. */
export function exampleSource(facade: string): string {
  const names = Object.keys(typevisor).join(', ');
  const entries = examples().map(
    ({ where, code, arch }) => `['${where}', ${quoted(arch)}, async () => {\n${code}}],\n`,
  );
  return [
    `import { ${names} } from '${facade}';\n`,
    `const examples: readonly (readonly [string, string | undefined, () => Promise<void>])[] = [\n${entries.join('')}];\n`,
    "const arch = process.arch === 'arm64' ? 'aarch64' : undefined;\n",
    'const ours = examples.filter(([, only]) => only === arch);\n',
    'for (const [where, , example] of ours) {\n  console.log(where);\n  await example();\n}\n',
    "console.log('examples run:', ours.length);\n",
  ].join('');
}

function quoted(text: string | undefined): string {
  return text === undefined ? 'undefined' : `'${text}'`;
}

/** A folder with that program in `examples.ts` and a tsconfig; ended by `using`. */
export function exampleModule(): { folder: string; file: string } & Disposable {
  const folder = mkdtempSync(join(tmpdir(), 'typevisor-examples-'));
  const file = join(folder, 'examples.ts');
  const compilerOptions = {
    typeRoots: [path('node_modules/@types')],
    rewriteRelativeImportExtensions: false, // the import of the facade is no relative one
    allowImportingTsExtensions: true,
  };
  writeFileSync(file, exampleSource(path('ts/index.ts')));
  writeFileSync(
    join(folder, 'tsconfig.json'),
    JSON.stringify({ extends: path('tsconfig.json'), compilerOptions, include: [], files: [file] }),
  );
  writeFileSync(join(folder, 'package.json'), '{ "type": "module" }');
  return { folder, file, [Symbol.dispose]: () => rmSync(folder, { recursive: true }) };
}

/** That program as it can be run here: where the tests run compiled it has been, too (lab/suite/build.mjs). */
export function exampleProgram(): { file: string } & Disposable {
  if (EXTENSION === '.ts') return exampleModule();
  return { file: path('target/lab/suite/generated/examples.js'), [Symbol.dispose]: () => undefined };
}
