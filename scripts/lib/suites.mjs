// The suites of `npm test`: what each one runs, with KVM and without.
import { output } from './run.mjs';
import { Stop } from './say.mjs';
import { filesBelow } from './stale.mjs';
import { tallyCargo, tallyTap, tapForPeople } from './tally.mjs';
import { cargoEnv } from './toolchain.mjs';

/** The crate that others use from Rust, and so the one with examples to run. */
const CORE = 'typevisor';
/** The Rust test target that runs guests; without KVM it is left out. */
const KVM_TARGET = 'kvm';
/** ava's tests that run guests lie here; without KVM they are left out. */
const KVM_FOLDER = '__test__/kvm/';

/** All suites, in the order in which they run: `{ name, command, args, env, tally, show }`. */
export function suites(withKvm) {
  const avaFiles = filesBelow(['__test__']).filter(file => file.endsWith('.test.ts'));
  const ava = withKvm ? avaFiles : avaFiles.filter(file => !file.startsWith(KVM_FOLDER));
  const ours = filesBelow(['scripts/test', 'lab/test']).filter(file => file.endsWith('.test.mjs'));
  return [
    cargo('cargo', ['--workspace', ...(withKvm ? ['--tests'] : ['--lib', '--bins', ...otherTargets()])]),
    cargo('cargo doc', ['--package', CORE, '--doc']),
    ava.length > 0 && tap('ava', 'node', ['node_modules/ava/entrypoints/cli.mjs', '--tap', ...ava]),
    tap('scripts', 'node', ['--test', '--test-reporter=tap', ...ours]),
  ].filter(Boolean);
}

function cargo(name, targets) {
  const args = ['test', '--all-features', '--no-fail-fast', ...targets];
  return {
    name,
    command: 'cargo',
    args,
    env: { ...cargoEnv(), CARGO_TERM_COLOR: 'never' },
    tally: tallyCargo,
    show: line => line,
  };
}

function tap(name, command, args) {
  return { name, command, args, env: { NO_COLOR: '1' }, tally: tallyTap, show: tapForPeople() };
}

/** cargo's arguments for each integration test but the one that needs KVM. */
function otherTargets() {
  const text = output('cargo', ['metadata', '--format-version=1', '--no-deps', '--offline'], { maxBuffer: 64 << 20 });
  if (text === undefined) throw new Stop('cargo metadata failed; run it to see why');
  const targets = JSON.parse(text).packages.flatMap(({ targets: all }) => all);
  const names = targets
    .filter(({ kind, name }) => kind.includes('test') && name !== KVM_TARGET)
    .map(({ name }) => name);
  return names.flatMap(name => ['--test', name]);
}
