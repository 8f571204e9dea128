// The selftests that are not run unless asked for by name (--only), and why.

/** `{ name, where, why }`; `where` is 'everywhere', 'lab' for every emulated machine, or 'host'. */
const LEFT_OUT = [
  { name: 'dirty_log_perf_test', where: 'everywhere', why: 'a measurement over 1 GiB, minutes on two cores' },
  { name: 'memslot_perf_test', where: 'everywhere', why: 'a measurement: many runs of 5 s, minutes altogether' },
  {
    name: 'hardware_disable_test',
    where: 'everywhere',
    why: 'kills 512 VMs one after the other, minutes on two cores',
  },
  { name: 'mmu_stress_test', where: 'lab', why: 'each processor touches all guest memory; minutes under emulation' },
  { name: 'rseq_test', where: 'lab', why: 'wants 100,000 moves between processors, minutes under emulation' },
];

/** Why a test is not run on a machine; undefined where it is. */
export function leftOut(machine, name, list = LEFT_OUT) {
  const place = machine === 'host' ? 'host' : 'lab';
  return list.find(entry => entry.name === name && (entry.where === 'everywhere' || entry.where === place))?.why;
}
