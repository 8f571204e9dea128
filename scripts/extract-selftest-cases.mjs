#!/usr/bin/env node
// node scripts/extract-selftest-cases.mjs
//
// Reads the kernel's selftests that are ported and writes the lists of their cases that our ports are compared with:
// crates/core/selftests/NAME.txt. A case is a static function test_* that main calls; behind it stands its processor
// where only one has it. The source is that of the lab: in the cache, or fetched (1.7 GB).
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { kernelSource } from '../lab/lib/source.mjs';
import { PORTS, caseLines, listOf, sourceOf } from '../lab/selftests/cases.mjs';
import { shown } from './lib/paths.mjs';
import { Stop, main } from './lib/say.mjs';

await main(import.meta.url, async () => {
  const found = await kernelSource();
  for (const name of Object.keys(PORTS)) {
    const source = sourceOf(name, found);
    if (!source) throw new Stop(`${name}: not in the kernel's source ${found.version}`);
    write(name, source);
  }
});

function write(name, { version, text }) {
  const lines = caseLines(text);
  const head =
    `# The cases of tools/testing/selftests/kvm/${name}.c in Linux ${version.split('-')[0]}: the static functions\n` +
    '# test_* that main calls. Generated: node scripts/extract-selftest-cases.mjs\n';
  mkdirSync(dirname(listOf(name)), { recursive: true });
  writeFileSync(listOf(name), `${head}${lines.join('\n')}\n`);
  console.log(`${shown(listOf(name))}: ${lines.length}`);
}
