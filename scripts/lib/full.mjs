// The suites of `npm run test:full`: what each one runs, and what it needs.
import { join } from 'node:path';
import { hostArch } from '../../lab/machines.mjs';
import { sourceOf } from '../../lab/selftests/cases.mjs';
import { kvmProblem } from './kvm.mjs';
import { ROOT } from './paths.mjs';
import { output } from './run.mjs';
import { TARGETS } from './broken.mjs';
import { tallyCargo, tallyTap, tallyVerdicts, tapForPeople } from './tally.mjs';
import { cargoEnv } from './toolchain.mjs';

/** How many sequences a property is held against: ours by the first name, proptest's own by the second. */
const CASES = { TYPEVISOR_PROPTEST_CASES: '100000', PROPTEST_CASES: '100000' };
/** Optimized enough that the tests' time is the kernel's. */
const PROFILE = ['--profile', 'lab', '--package', 'typevisor'];
/** The room of the slots, in the core's unit tests. */
const ROOM = 'memory::';
/** Those whose memory is also held by threads and by KVM. */
const ROOMS = [ROOM, 'exit::', 'vcpu::', 'bus::', 'stats::', 'control::'];
/** How the titles of stress tests begin. */
const STRESS = 'stress:';
/** A sanitized process is several times slower, and what leaks does so in the first rounds. */
const FEWER = { TYPEVISOR_TEST_SCALE: '0.1' };

/** All suites, in the order in which they run: `{ name, command, args, env, tally, show, why }`, `why` being a skip's. */
export function fullSuites() {
  return [
    cargo('properties', ['test', ...PROFILE, '--lib', ROOM], CASES),
    cargo('stress', ['test', ...PROFILE, '--test', 'kvm', STRESS], { TYPEVISOR_TIER: 'full' }, kvmProblem()),
    sanitized('asan', ['--lib', '--', ...ROOMS], {}),
    sanitized('asan kvm', ['--test', 'kvm'], FEWER, kvmProblem()),
    sanitized('asan stress', ['--test', 'kvm', '--', STRESS], { TYPEVISOR_TIER: 'full' }, kvmProblem()),
    cases(),
    loom(),
    broken(),
  ];
}

function cargo(name, args, env, why) {
  const all = { ...cargoEnv(), CARGO_TERM_COLOR: 'never', ...env };
  return { name, command: 'cargo', args, env: all, tally: tallyCargo, show: line => line, why };
}

/**
 * Named by its target, so that build scripts and macros, which run in the compiler, stay as they are. At its end each process looks
 * for leaks, those included that tests start for themselves; it stops its threads by ptrace for that, and fails where
 * that is forbidden, or where a debugger or strace has it.
 */
function sanitized(name, tests, env, why) {
  const target = `${hostArch()}-unknown-linux-gnu`;
  const args = ['+nightly', 'test', ...PROFILE, '--target', target, '--target-dir', 'target/asan', ...tests];
  const flags = {
    RUSTFLAGS: '-Zsanitizer=address -Cforce-frame-pointers=yes',
    ASAN_OPTIONS: 'detect_leaks=1',
    LSAN_OPTIONS: `suppressions=${join(ROOT, 'scripts/lib/leaks.supp')}:print_suppressions=0`,
  };
  return cargo(name, args, { ...flags, ...env }, why ?? noNightly());
}

function noNightly() {
  if (output('cargo', ['+nightly', '--version'], { stdio: ['ignore', 'pipe', 'ignore'] }) !== undefined)
    return undefined;
  return 'needs a nightly Rust: rustup toolchain install nightly';
}

/** The tests that read the kernel's source. */
function cases() {
  const args = ['--test', '--test-reporter=tap', 'lab/test/cases.full.mjs'];
  const why = sourceOf('set_memory_region_test') ? undefined : "needs the kernel's source: npm run lab -- selftests";
  return { name: 'cases', command: 'node', args, env: { NO_COLOR: '1' }, tally: tallyTap, show: tapForPeople(), why };
}

/** The model of runs, kicks and holds: minutes of interleavings, in a folder of its own, as all is built for it. */
function loom() {
  const { args, env, folder } = TARGETS.loom;
  return cargo('loom', ['test', ...PROFILE, ...args, '--target-dir', folder], env);
}

/** A program of its own, which counts for itself. */
function broken() {
  const args = ['scripts/test-broken.mjs'];
  return { name: 'broken', command: 'node', args, env: { NO_COLOR: '1' }, tally: tallyVerdicts, show: line => line };
}
