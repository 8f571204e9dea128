// npm run lab -- selftests [--machine host|ID]… [--only NAME]… [--timeout SECONDS] [--json]
// npm run lab -- selftests --compare NAME [--machine host|ID]… [--timeout SECONDS]
//
// The kernel's own KVM selftests, here and in machines of the lab: the oracle for our tests. Built once from the
// distribution's kernel source. The report is a table test × machine; target/lab/selftests/MACHINE.json has it in full.
//
//   --machine ID        host (this machine's own KVM) or a machine of the lab; may be repeated (host and lab)
//   --only NAME         that test alone, also one that is else left out; may be repeated
//   --timeout SECONDS   for each test (60, and 300 with --compare; three times as long in the lab)
//   --json              the reports on stdout as JSON, and no table
//   --compare NAME      that test beside our port of it, on this machine and on every machine of the lab
//
// Exit codes: 0 where each test has a verdict, whatever it is; 1 where a machine could not be used, or where the C test
// passes and our port does not; 2 for bad arguments.
import { accessSync, constants, mkdirSync, writeFileSync } from 'node:fs';
import { release } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { ROOT, shown } from '../../scripts/lib/paths.mjs';
import { Stop, say } from '../../scripts/lib/say.mjs';
import { MACHINES, byId, hostArch } from '../machines.mjs';
import { builtSelftests } from './build.mjs';
import { PORTS } from './cases.mjs';
import { compare } from './compare.mjs';
import { inLab } from './in-lab.mjs';
import { leftOut } from './left-out.mjs';
import { json, reasons, resultLine, summary, table } from './report.mjs';
import { runTest } from './run.mjs';

const REPORTS = join(ROOT, 'target/lab/selftests');
const HOST = 'host';
const TIMEOUT_S = 60;
/** Of a comparison, which counts passes: only a test that hangs takes as long. */
const COMPARE_TIMEOUT_S = 300;
/** Emulation is that much slower, and more: what takes longer all the same is on the list in left-out.mjs. */
const LAB_FACTOR = 3;

/** The command; gives its exit code. */
export async function selftests(args) {
  const { machines, only, timeoutS, asJson, comparing } = parse(args);
  if (comparing !== undefined) return comparePort(comparing, machines, timeoutS);
  const reports = [];
  for (const machine of machines) {
    const report = await reportOf(machine, only, timeoutS);
    mkdirSync(REPORTS, { recursive: true });
    writeFileSync(join(REPORTS, `${report.machine}.json`), json(report));
    say(`${report.machine}: ${summary(report.results)} (${shown(join(REPORTS, `${report.machine}.json`))})`);
    reports.push(report);
  }
  if (asJson) console.log(JSON.stringify({ schemaVersion: 1, reports }, null, 2));
  else console.log([table(reports), '', ...reasons(reports)].join('\n'));
  return 0;
}

function comparePort(name, machines, timeoutS) {
  return compare(name, machines, timeoutS * LAB_FACTOR, async machine => {
    const { results } = await reportOf(machine, [name], timeoutS);
    return results[0];
  });
}

function parse(args) {
  const text = { type: 'string' };
  const many = { ...text, multiple: true };
  const options = { machine: many, only: many, timeout: text, json: { type: 'boolean' }, compare: text };
  let values;
  try {
    ({ values } = parseArgs({ args, options }));
  } catch (error) {
    throw new Stop(`selftests: ${error.message} (--help says more)`, 2);
  }
  const { only, json: asJson, compare: comparing } = values;
  if (comparing !== undefined) checkCompare(comparing, only ?? asJson);
  const ids = values.machine ?? (comparing === undefined ? [HOST, 'lab'] : [HOST, ...MACHINES.map(({ id }) => id)]);
  const machines = ids.map(id => (id === HOST ? HOST : byId(id)));
  if (machines.includes(HOST)) needKvm();
  return {
    machines,
    only,
    timeoutS: seconds(values.timeout, comparing === undefined ? TIMEOUT_S : COMPARE_TIMEOUT_S),
    asJson,
    comparing,
  };
}

function seconds(given, otherwise) {
  if (given === undefined) return otherwise;
  if (/^[1-9]\d{0,4}$/.test(given)) return Number(given);
  throw new Stop(`selftests: --timeout takes whole seconds from 1 on, not ${given}`, 2);
}

function checkCompare(name, others) {
  if (!Object.hasOwn(PORTS, name))
    throw new Stop(`selftests: there is no port of ${name}; there are: ${Object.keys(PORTS).join(', ')}`, 2);
  if (others !== undefined) throw new Stop('selftests: --compare goes with neither --only nor --json', 2);
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
async function reportOf(machine, only, timeoutS) {
  const built = await builtSelftests(machine === HOST ? hostArch() : machine.arch);
  const { dir, version } = built;
  const { names, all } = choose(built.names, only);
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
