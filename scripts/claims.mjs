#!/usr/bin/env node
// npm run claims -- [--json | --list] [--folder FOLDER] [ID…]
//
// Runs the commands of claims/*.json (all, or those named) from the repository's top folder and compares what they
// print with what is promised. Prints id, PASS, FAIL or NOT HERE, and the figure or the reason.
//
//   --json            the results as one JSON object on stdout
//   --list            the claims and their sentences; runs nothing
//   --folder FOLDER   claims from there
//
// Exit code 1 if any FAILs, 2 for an unknown id or a bad file. claims/README.md describes the files.
import { readFileSync, readdirSync } from 'node:fs';
import { basename, join } from 'node:path';
import { parseArgs } from 'node:util';
import { emulator } from '../lab/lib/qemu.mjs';
import { hostArch } from '../lab/machines.mjs';
import { judge, parseClaim, table } from './lib/claims.mjs';
import { kvmProblem } from './lib/kvm.mjs';
import { ROOT } from './lib/paths.mjs';
import { output, run } from './lib/run.mjs';
import { Stop, main, say } from './lib/say.mjs';

await main(import.meta.url, async args => {
  const { options, ids } = parsed(args);
  const claims = chosen(readClaims(options.folder), ids);
  if (options.list) return list(claims, options);
  const [results, ends] = [[], new Map()];
  for (const claim of claims) {
    say(`claim: ${claim.id}: ${claim.sentence}`);
    results.push({ id: claim.id, sentence: claim.sentence, ...(await verdict(claim, ends)) });
  }
  if (options.json) console.log(JSON.stringify({ schemaVersion: 1, results }, null, 2));
  else for (const line of table(results)) console.log(line);
  return results.some(result => result.verdict === 'FAIL') ? 1 : 0;
});

function parsed(args) {
  const flag = { type: 'boolean' };
  const folder = { type: 'string', default: join(ROOT, 'claims') };
  try {
    const { values, positionals } = parseArgs({
      args,
      allowPositionals: true,
      options: { json: flag, list: flag, folder },
    });
    return { options: values, ids: positionals };
  } catch (error) {
    throw new Stop(`${error.message} (see --help)`, 2);
  }
}

function readClaims(folder) {
  try {
    const files = readdirSync(folder)
      .filter(name => name.endsWith('.json'))
      .toSorted();
    return files.map(file => parseClaim(readFileSync(join(folder, file), 'utf8'), file));
  } catch (error) {
    throw new Stop(`${basename(folder)}/${error.message}`, 2);
  }
}

function chosen(claims, ids) {
  const unknown = ids.filter(id => !claims.some(claim => claim.id === id));
  if (unknown.length > 0) throw new Stop(`no such claim: ${unknown.join(', ')} (--list shows them all)`, 2);
  return ids.length > 0 ? ids.map(id => claims.find(claim => claim.id === id)) : claims;
}

function list(claims, options) {
  if (options.json) console.log(JSON.stringify({ schemaVersion: 1, claims }, null, 2));
  else for (const { id, sentence } of claims) console.log(`${id}: ${sentence}`);
  return 0;
}

/** `ends` is how each command ended, by command: claims that share one are shown by one run of it. */
async function verdict(claim, ends) {
  const reason = claim.needs.map(unmet).find(Boolean);
  if (reason) return { verdict: 'NOT HERE', reason };
  const { command } = claim;
  if (!ends.has(command)) ends.set(command, await ending(claim));
  const { seconds, ...end } = ends.get(command);
  return { ...judge(claim, end), seconds };
}

async function ending({ command, timeoutS }) {
  const out = { stdout: '', stderr: '' };
  const onLine = (line, stream) => (out[stream] += `${line}\n`);
  const started = performance.now();
  const end = await run('sh', ['-c', command], { onLine, timeoutMs: timeoutS * 1000 });
  return { ...end, ...out, seconds: Math.round((performance.now() - started) / 100) / 10 };
}

/** Why a need is not met on this machine; undefined where it is. */
function unmet(need) {
  if (need === 'kvm') return kvmProblem();
  if (need === 'lab') return labProblem();
  return process.getuid() === 0 ? undefined : 'needs root';
}

/** Machines are made ready by the command itself; what it cannot bring is the emulator. */
function labProblem() {
  const command = emulator(hostArch());
  return output(command, ['--version']) === undefined ? `no ${command}` : undefined;
}
