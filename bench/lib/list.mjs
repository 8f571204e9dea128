// The benchmarks: what each one measures, and how its two programs are started.
import { join } from 'node:path';
import { ROOT } from '../../scripts/lib/paths.mjs';
import { PORT, portWrites } from './guests.mjs';

const exits = (how, more) => ({
  reference: 'exits',
  subject: ['bench/node/exits.mjs', how],
  guest: portWrites,
  processors: 1,
  ...more,
});

/** The reference has KVM gather the writes as well. */
const gathered = (how, more) => exits(how, { ...more, more: [String(PORT)] });

/**
 * By name: `{ what, reference, more, subject, guest, processors }`. `reference` is a program of bench/c, which gets `more`
 * arguments behind the guest's, `subject` a script with its arguments. With 2 `processors` the vCPU's thread has one and everything else in Node.js the other.
 */
export const BENCHMARKS = {
  'exit-rust-device': exits('rust-device', {
    what: 'a port write taken by a device in Rust, under runSync',
  }),
  'exit-js-sync': exits('js-sync', {
    what: 'a port write taken by a device in JavaScript, under runSync',
  }),
  'exit-await-run': exits('await-run', {
    what: 'a port write delivered by await vcpu.run(), both threads on one processor',
  }),
  'exit-await-run-two': exits('await-run', {
    what: 'a port write delivered by await vcpu.run(), vCPU and JavaScript on a processor each',
    processors: 2,
  }),
  'exit-posted': exits('posted', {
    what: 'a port write posted to a device in JavaScript, under runSync',
  }),
  'exit-posted-run': exits('posted-run', {
    what: 'a port write posted to a device in JavaScript, under run(), both threads on one processor',
  }),
  'exit-posted-run-two': exits('posted-run', {
    what: 'a port write posted to a device in JavaScript, under run(), vCPU and JavaScript on a processor each',
    processors: 2,
  }),
  'posted-ring': gathered('posted', {
    what: 'a port write gathered by KVM and posted to a device in JavaScript, under runSync',
  }),
  'posted-ring-run': gathered('posted-run', {
    what: 'a port write gathered by KVM and posted to a device in JavaScript, under run(), both threads on one processor',
  }),
  'posted-ring-run-two': gathered('posted-run', {
    what: 'a port write gathered by KVM and posted to a device in JavaScript, under run(), on a processor each',
    processors: 2,
  }),
};

/** The command lines of both programs. */
export function commands({ subject, guest, more: forReference = [] }, program) {
  const { code, entry, countAt, slotSize } = guest;
  const numbers = [entry, countAt, slotSize].map(String);
  const args = [Buffer.from(code).toString('hex'), ...numbers];
  const [script, ...more] = subject;
  return {
    reference: [program, ...args, ...forReference],
    subject: [process.execPath, join(ROOT, script), ...more, ...args],
  };
}
