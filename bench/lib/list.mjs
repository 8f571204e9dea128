// The benchmarks: what each one measures, and the two programs that are compared.
import { HERE, MANY, OTHERS_AT, SIZE, STEP, THERE } from './layout.mjs';
import { PORT, counter, inArguments, portWrites } from './guests.mjs';

const exits = (how, what, processors = 1, forReference = []) => {
  const guest = inArguments(portWrites);
  return {
    what,
    reference: { c: 'exits', args: [...guest, ...forReference] },
    subject: { node: 'exits', args: [how, ...guest], processors },
  };
};

/** The reference has KVM gather the writes as well. */
const gathered = (how, what, processors) => exits(how, what, processors, [String(PORT)]);

/** How long a kick takes to stop a guest that counts. */
const kick = (what, { args = [], ...subject }) => {
  const guest = inArguments(counter);
  return {
    what,
    reference: { c: 'kick', args: guest, processors: 2 },
    subject: { ...subject, args: [...args, ...guest], processors: 2 },
  };
};

/**
 * Into how many pairs one of the slot benchmarks' is cut. A change of a slot waits for threads of the kernel, so that on a
 * busy machine a batch of 30 ms always holds some interruption; most of 3 ms hold none.
 */
const CUT = 10;

/** How the operations of the memory benchmarks are called in either language; the program is picked by `subjects`. */
const OPERATIONS = {
  map: 'a slot of 64 KiB mapped and unmapped, its memory included',
  move: 'a slot moved',
  flags: "a slot's dirty logging turned on or off",
};

/** The code under test in both languages. */
const subjects = args => [
  { suffix: 'rust', language: 'Rust', subject: { rust: true, args } },
  { suffix: 'ts', language: 'TypeScript', subject: { node: 'memory', args } },
];

/** One operation on a slot of a VM with that many others, in C, from Rust and from TypeScript. */
function slots(operation, others) {
  const args = [operation, ...[others, OTHERS_AT, STEP, SIZE, HERE, THERE].map(String)];
  const beside = others === 1 ? 'one other' : `${others.toLocaleString('en')} others`;
  return subjects(args).map(({ suffix, language, subject }) => [
    `slots-${operation}-${others}-${suffix}`,
    {
      what: `${OPERATIONS[operation]}, beside ${beside}, from ${language}`,
      reference: { c: 'slots', args },
      subject,
      slots: others + 2,
      cut: CUT,
    },
  ]);
}

/** 8 bytes of a VM with many slots, beside the same of a VM with one: the program is its own reference. */
function reads() {
  const [few, many] = [1, MANY].map(count => subjects(['read', ...[count, OTHERS_AT, STEP].map(String)]));
  return many.map(({ suffix, language, subject }, index) => [
    `read-word-${suffix}`,
    {
      what: `8 bytes read with ${MANY.toLocaleString('en')} slots, beside the same with one, from ${language}`,
      reference: few[index].subject,
      subject,
      slots: MANY + 1,
    },
  ]);
}

/** 2 MiB out of the guest, beside memcpy. */
function copies() {
  const args = ['copy', String(2 << 20)];
  const reference = { c: 'copy', args: args.slice(1) };
  return subjects(args).map(({ suffix, language, subject }) => [
    `read-2m-${suffix}`,
    { what: `2 MiB read, beside memcpy, from ${language}`, reference, subject },
  ]);
}

/**
 * By name: `{ what, reference, subject, slots, cut }`. `reference` and `subject` are programs, see programs.mjs. With 2
 * `processors` the vCPU's thread of a program has one and all its other threads the other. `slots` is how many the VM must
 * have, `cut` into how many shorter pairs each is cut.
 */
export const BENCHMARKS = {
  'exit-rust-device': exits('rust-device', 'a port write taken by a device in Rust, under runSync'),
  'exit-js-sync': exits('js-sync', 'a port write taken by a device in JavaScript, under runSync'),
  'exit-await-run': exits('await-run', 'a port write delivered by await vcpu.run(), both threads on one processor'),
  'exit-await-run-two': exits(
    'await-run',
    'a port write delivered by await vcpu.run(), vCPU and JavaScript on a processor each',
    2,
  ),
  'exit-posted': exits('posted', 'a port write posted to a device in JavaScript, under runSync'),
  'exit-posted-run': exits(
    'posted-run',
    'a port write posted to a device in JavaScript, under run(), both threads on one processor',
  ),
  'exit-posted-run-two': exits(
    'posted-run',
    'a port write posted to a device in JavaScript, under run(), vCPU and JavaScript on a processor each',
    2,
  ),
  'posted-ring': gathered('posted', 'a port write gathered by KVM and posted to a device in JavaScript, under runSync'),
  'posted-ring-run': gathered(
    'posted-run',
    'a port write gathered by KVM and posted to a device in JavaScript, under run(), both threads on one processor',
  ),
  'posted-ring-run-two': gathered(
    'posted-run',
    'a port write gathered by KVM and posted to a device in JavaScript, under run(), on a processor each',
    2,
  ),
  'kick-sync-rust': kick("a kick until run_sync has returned on a thread of the program's, from Rust", {
    rust: true,
    args: ['kick-sync'],
  }),
  'kick-run-rust': kick("a kick until the run's end is told on the vCPU's own thread, from Rust", {
    rust: true,
    args: ['kick-run'],
  }),
  'kick-run-ts': kick('a kick until await vcpu.run() goes on, in JavaScript on the other processor', { node: 'kick' }),
  ...Object.fromEntries([
    ...Object.keys(OPERATIONS).flatMap(operation => [1, 512, MANY].flatMap(others => slots(operation, others))),
    ...reads(),
    ...copies(),
  ]),
};
