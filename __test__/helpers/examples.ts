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
}

/** All of them, file by file. */
export function examples(): Example[] {
  const files = readdirSync(path('ts')).filter(name => name.endsWith('.ts'));
  return files.flatMap(file => {
    const text = readFileSync(path(`ts/${file}`), 'utf8');
    return Array.from(text.matchAll(/^ *\* @example\n((?: *\* .*\n)+)/gmu), match => ({
      where: `ts/${file}:${text.slice(0, match.index).split('\n').length}`,
      code: (match[1] ?? '').replaceAll(/^ *\* ?/gmu, '').replace(/^@\w+[^]*/mu, ''),
    }));
  });
}

/** All of them as one program, which imports the facade from `facade` and says in the end how many it ran. */
export function exampleSource(facade: string): string {
  const names = Object.keys(typevisor).join(', ');
  const entries = examples().map(({ where, code }) => `['${where}', async () => {\n${code}}],\n`);
  return [
    `import { ${names} } from '${facade}';\n`,
    `const examples: readonly (readonly [string, () => Promise<void>])[] = [\n${entries.join('')}];\n`,
    'for (const [where, example] of examples) {\n  console.log(where);\n  await example();\n}\n',
    "console.log('examples run:', examples.length);\n",
  ].join('');
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
