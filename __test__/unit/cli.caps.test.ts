import test from 'ava';
import { fold, type Row, table } from '../../ts/cli/caps.ts';

const rows: readonly Row[] = [
  {
    name: 'irqchip',
    number: 0,
    kvm: 1,
    vm: 1,
    since: '5.10 or earlier',
    meaning: '1: there can be an interrupt controller',
  },
  { name: 'guest-memfd', number: 234, kvm: 0, vm: 0, since: '6.8', meaning: `1: ${'word '.repeat(30)}end` },
];

test('table: in a pipe there is one whole line for each capability', t => {
  t.deepEqual(table(rows, undefined), [
    'name         no.  /dev/kvm  VM  since  meaning',
    'irqchip        0         1   1  5.10-  1: there can be an interrupt controller',
    `guest-memfd  234         0   0    6.8  1: ${'word '.repeat(30)}end`,
  ]);
});

test("table: the VM's answer alone", t => {
  const row: Row = { name: 'hlt', number: 1, vm: 1, since: '6.18', meaning: '1: waits' };
  t.deepEqual(table([row], undefined), ['name  no.  VM  since  meaning', 'hlt     1   1   6.18  1: waits']);
});

for (const columns of [80, 120]) {
  test(`table: on a terminal no line is longer than ${columns}, and no word is lost`, t => {
    const lines = table(rows, columns);
    t.true(lines.every(({ length }) => length <= columns));
    t.is(lines.join(' ').match(/\bword\b/gu)?.length, 30);
  });
}

test('table: of nothing is its head', t => {
  t.deepEqual(table([], 80), ['name  no.  VM  since  meaning']);
});

test('fold: breaks at spaces; a word that is too long stays whole', t => {
  t.deepEqual(fold('one two three', 7), ['one two', 'three']);
  t.deepEqual(fold('one unbreakable', 4), ['one', 'unbreakable']);
  t.deepEqual(fold('', 4), ['']);
});
