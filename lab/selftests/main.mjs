// npm run lab -- selftests [--machine host|ID]… [--only NAME]… [--timeout SECONDS] [--json]
//
// The kernel's own KVM selftests, here and in machines of the lab: the oracle for our tests. Built once from the
// distribution's kernel source. The report is a table test × machine; target/lab/selftests/MACHINE.json has it in full.
//
//   --machine ID        host (this machine's own KVM) or a machine of the lab; may be repeated (host and lab)
//   --only NAME         that test alone, also one that is else left out; may be repeated
//   --timeout SECONDS   for each test (60; three times as long in the lab)
//   --json              the reports on stdout as JSON, and no table
//
// Exit codes: 0 where each test has a verdict, whatever it is; 1 where a machine could not be used; 2 for bad arguments.
import { accessSync, constants, mkdirSync, writeFileSync } from 'node:fs';
import { release } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { ROOT, shown } from '../../scripts/lib/paths.mjs';
import { Stop, say } from '../../scripts/lib/say.mjs';
import { byId, hostArch } from '../machines.mjs';
import { builtSelftests } from './build.mjs';
import { inLab } from './in-lab.mjs';
import { leftOut } from './left-out.mjs';
import { json, reasons, resultLine, summary, table } from './report.mjs';
import { runTest } from './run.mjs';

const REPORTS = join(ROOT, 'target/lab/selftests');
const HOST = 'host';
const TIMEOUT_S = 60;
/** Emulation is that much slower, and more: what takes longer all the same is on the list in left-out.mjs. */
const LAB_FACTOR = 3;

/** The command; gives its exit code. */
export async function selftests(args) {
  const { machines, only, timeoutS, asJson } = parse(args);
  const reports = [];
  for (const machine of machines) {
    const built = await builtSelftests(machine === HOST ? hostArch() : machine.arch);
    const report = await reportOf(machine, built, choose(built.names, only), timeoutS);
    mkdirSync(REPORTS, { recursive: true });
    writeFileSync(join(REPORTS, `${report.machine}.json`), json(report));
    say(`${report.machine}: ${summary(report.results)} (${shown(join(REPORTS, `${report.machine}.json`))})`);
    reports.push(report);
  }
  if (asJson) console.log(JSON.stringify({ schemaVersion: 1, reports }, null, 2));
  else console.log([table(reports), '', ...reasons(reports)].join('\n'));
  return 0;
}

function parse(args) {
  const many = { type: 'string', multiple: true };
  const options = { machine: many, only: many, timeout: { type: 'string' }, json: { type: 'boolean' } };
  let values;
  try {
    ({ values } = parseArgs({ args, options }));
  } catch (error) {
    throw new Stop(`selftests: ${error.message} (--help says more)`, 2);
  }
  const text = values.timeout ?? String(TIMEOUT_S);
  if (!/^[1-9]\d{0,4}$/.test(text))
    throw new Stop(`selftests: --timeout takes whole seconds from 1 on, not ${text}`, 2);
  const ids = values.machine ?? [HOST, 'lab'];
  const machines = ids.map(id => (id === HOST ? HOST : byId(id)));
  if (machines.includes(HOST)) needKvm();
  return { machines, only: values.only, timeoutS: Number(text), asJson: values.json };
}

function needKvm() {
  try {
    accessSync('/dev/kvm', constants.R_OK | constants.W_OK);
  } catch (error) {
    throw new Stop(`selftests: /dev/kvm cannot be used here (${error.code}); --machine lab runs them in the lab`);
  }
}

function choose(names, only) {
  const unknown = only?.find(name => !names.includes(name));
  if (unknown) throw new Stop(`selftests: there is no test ${unknown}; there are: ${names.join(', ')}`, 2);
  return { names: only ?? names, all: only === undefined };
}

/** Runs the chosen tests on one machine: `{ machine, version, kernel, timeoutS, results }`. */
async function reportOf(machine, { dir, version }, { names, all }, timeoutS) {
  const id = machine === HOST ? HOST : machine.id;
  const skipped = new Map(names.map(name => [name, all ? leftOut(id, name) : undefined]));
  const wanted = names.filter(name => !skipped.get(name));
  const width = Math.max(...names.map(name => name.length));
  const limit = machine === HOST ? timeoutS : timeoutS * LAB_FACTOR;
  const show = (result, number) => say(`${id} ${number}/${wanted.length} ${resultLine(result, width)}`);
  say(`${id}: ${wanted.length} selftests of ${version}, at most ${limit} s each`);
  const { kernel, ran } =
    machine === HOST ? await onHost(dir, wanted, limit, show) : await inLab(machine, dir, wanted, limit, show);
  const results = names.map(name => {
    const why = skipped.get(name);
    return why ? { name, verdict: 'left out', seconds: 0, said: why } : ran.find(result => result.name === name);
  });
  return { machine: id, version, kernel, timeoutS: limit, results };
}

async function onHost(dir, names, timeoutS, show) {
  const ran = [];
  for (const name of names) {
    ran.push(await runTest(dir, name, timeoutS));
    show(ran.at(-1), ran.length);
  }
  return { kernel: release(), ran };
}
