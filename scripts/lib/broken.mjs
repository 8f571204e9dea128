// The rules that `npm run test:broken` breaks, each with the tests that must turn red; and how a broken build is made.
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ROOT } from './paths.mjs';
import { tallyCargo } from './tally.mjs';

/** What broken builds leave, apart from all others. */
export const FOLDER = 'target/broken';

/** A unit test of the core, by its path. */
const unit = test => ({ target: 'unit', test });
/** A test of real KVM, by its title; `machine` names the lab's where this one's KVM cannot show it. */
const kvm = (test, machine) => ({ target: 'kvm', test, machine });
/** A test of the model (crates/core/tests/loom), by its path. */
const loom = test => ({ target: 'loom', test });

/** cargo's arguments for each kind of test, and what it needs besides. */
export const TARGETS = {
  unit: { args: ['--lib'], kind: 'lib', env: {}, folder: FOLDER },
  kvm: { args: ['--test', 'kvm'], kind: 'test', env: {}, folder: FOLDER },
  loom: { args: ['--test', 'loom'], kind: 'test', env: { RUSTFLAGS: '--cfg loom' }, folder: 'target/loom' },
};

const HOLD = 'vcpu::hold::tests::';
const SLOTS = 'memory::tests::';
const LISTS = `${SLOTS}transactions::`;

/** `name` is the value of the cfg, `breaks` what it does to the rule, `red` the tests that must fail, each of them. */
export const RULES = [
  {
    name: 'kick-window',
    breaks: 'a runner clears immediate_exit after it has looked for requests',
    red: [
      loom('kicks::a_kick_at_any_moment_ends_one_run_and_no_more'),
      loom('kicks::closing_ends_the_run_at_any_moment_and_every_later_one'),
      kvm('stress: every kick, at whatever moment, ends one run and no more'),
    ],
  },
  {
    name: 'kick-late',
    breaks: 'a request is stored after the signal that tells of it',
    red: [
      loom('kicks::a_kick_at_any_moment_ends_one_run_and_no_more'),
      kvm('run: a kick stops an endless guest on its thread'),
    ],
  },
  {
    name: 'kick-stays',
    breaks: 'a kick is not used up by the run that it ended',
    red: [
      loom('kicks::a_kick_at_any_moment_ends_one_run_and_no_more'),
      kvm('run: a kick while idle stops the next run, once'),
    ],
  },
  {
    name: 'cancel-stays',
    breaks: 'a cancellation outlives its run',
    red: [
      loom('kicks::a_cancellation_that_an_exit_forestalls_is_forgotten'),
      kvm('run: cancel stops its run and no other'),
    ],
  },
  {
    name: 'completion-answer',
    breaks: 'an exit that wants an answer is resumed without one',
    red: [kvm('run: an unanswered exit is never resumed')],
  },
  {
    name: 'completion-settle',
    breaks: 'settling says that it is done, and completes nothing',
    red: [kvm('run: settling completes an exit without running on')],
  },
  {
    name: 'completion-stop',
    breaks: 'a stop leaves the completion of an access pending',
    red: [kvm('kick: it leaves the guest between two instructions')],
  },
  {
    name: 'completion-registers',
    breaks: 'registers are written while a completion is pending',
    red: [kvm('run: registers of a pending exit are raw and not to be written')],
  },
  {
    name: 'sentinel-absent',
    breaks: 'on x86_64 the last exit reason stays in the page at entry',
    // Newer kernels overwrite it themselves.
    red: [kvm('exit: a failing run is no fault of long ago', '6.1')],
  },
  {
    name: 'sentinel-everywhere',
    breaks: 'on aarch64 the exit reason that completes a read is overwritten at entry',
    red: [kvm('run: settling completes an exit without running on', 'aarch64-5.10')],
  },
  {
    name: 'stale-page',
    breaks: 'the page is read after EINTR',
    red: [kvm('run: settling completes an exit without running on')],
  },
  {
    name: 'unmap-published',
    breaks: 'KVM deletes a slot before accesses stop finding it',
    red: [unit(`${SLOTS}memory_is_unpublished_before_kvm_deletes_and_unmapped_after`)],
  },
  {
    name: 'unmap-early',
    breaks: 'memory is unmapped before KVM has deleted its slot',
    red: [unit(`${SLOTS}memory_is_unpublished_before_kvm_deletes_and_unmapped_after`)],
  },
  {
    name: 'unmap-refused',
    breaks: 'memory is unmapped though KVM refused to delete its slot',
    red: [unit(`${SLOTS}memory_that_kvm_will_not_give_up_stays_mapped`)],
  },
  {
    name: 'rollback',
    breaks: 'the changes before a refused one stay',
    red: [unit(`${LISTS}whichever_ioctl_is_refused_everything_is_as_it_was`)],
  },
  {
    name: 'rollback-order',
    breaks: 'changes are undone in the order in which they were made',
    red: [unit(`${LISTS}whichever_ioctl_is_refused_everything_is_as_it_was`)],
  },
  {
    name: 'rollback-ledger',
    breaks: 'the ledger keeps what a refused change entered',
    red: [unit(`${SLOTS}a_failed_ioctl_leaves_everything_as_it_was`)],
  },
  {
    name: 'poison',
    breaks: 'a VM whose rollback was refused goes on',
    red: [unit(`${LISTS}a_refused_undoing_poisons_the_vm_and_it_can_be_closed`)],
  },
  {
    name: 'change-unheld',
    breaks: 'a change of several ioctls holds nobody out',
    red: [
      unit(`${LISTS}a_list_is_done_in_order_with_the_vcpus_held_out`),
      kvm('change: 500 swaps of a slot under a running reader bring no exit'),
    ],
  },
  {
    name: 'hold-early',
    breaks: 'a hold does not wait until the vCPUs are out',
    red: [
      loom('holds::nobody_is_in_the_guest_while_it_is_held_and_all_go_on'),
      unit(`${HOLD}nobody_is_in_the_guest_while_it_is_held_and_all_come_back`),
    ],
  },
  {
    name: 'hold-window',
    breaks: 'a runner says that it is inside after it has looked whether it may be',
    red: [
      loom('holds::nobody_is_in_the_guest_while_it_is_held_and_all_go_on'),
      unit(`${HOLD}nobody_is_in_the_guest_while_it_is_held_and_all_come_back`),
    ],
  },
  {
    name: 'hold-deaf',
    breaks: 'a stop wakes nobody who is held out',
    red: [
      loom('holds::a_stop_while_held_ends_the_run_there'),
      unit(`${HOLD}stops::a_stop_that_comes_while_held_is_obeyed_at_once_and_enters_nothing`),
      kvm('hold: closing the VM ends runs and settling'),
    ],
  },
  {
    name: 'pause-early',
    breaks: 'a pause is told while a vCPU is in the guest',
    red: [
      loom('holds::a_pause_is_told_when_nobody_is_inside_and_all_go_on_after_it'),
      unit(`${HOLD}pauses::nobody_is_inside_from_when_it_is_told_until_it_is_resumed`),
    ],
  },
];

/** As it stands in verdicts; also what tells two demands apart. */
export function demandName({ target, test, machine }) {
  return `${target}${machine ? ` in ${machine}` : ''} › ${test}`;
}

/** Each demanded test once. */
export function demandsOf(rules) {
  return [...new Map(rules.flatMap(({ red }) => red).map(demand => [demandName(demand), demand])).values()];
}

/**
 * A stand-in for rustc that adds the cfg: cargo calls it for the crates of this workspace alone, and keeps what it made
 * apart from what others made, so that nothing else is built anew. Gives its path.
 */
export function compilerThatBreaks(name) {
  const folder = join(ROOT, FOLDER, 'rustc');
  mkdirSync(folder, { recursive: true });
  const file = join(folder, name);
  writeFileSync(file, `#!/bin/sh\nexec "$@" --cfg 'broken="${name}"'\n`);
  chmodSync(file, 0o755);
  return file;
}

/**
 * What a run of one test came to, from `run`'s end and its lines: `{ colour, how }`, the colour being green, red, none
 * (skipped, with the reason in `how`) or lost (there was no such test, or no result).
 */
export function colourOf({ status, signal, timedOut }, lines) {
  if (timedOut) return { colour: 'red', how: 'hung' };
  if (signal) return { colour: 'red', how: `was ended by ${signal}` };
  const { passed, failed, skips } = tallyCargo(lines);
  if (failed > 0) return { colour: 'red', how: 'failed' };
  if (skips.length > 0) return { colour: 'none', how: skips[0].reason };
  if (passed === 1 && status === 0) return { colour: 'green', how: 'passed' };
  return { colour: 'lost', how: status === 0 ? 'there is no such test' : `gave no result (exit code ${status})` };
}
