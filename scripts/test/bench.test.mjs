// Benchmarks: from measured pairs to figures, and where things run.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { PORT, counter, portWrites } from '../../bench/lib/guests.mjs';
import * as layout from '../../bench/lib/layout.mjs';
import { Child } from '../../bench/lib/child.mjs';
import { BENCHMARKS } from '../../bench/lib/list.mjs';
import { parseCpuList } from '../../bench/lib/processors.mjs';
import { table } from '../../bench/lib/report.mjs';
import { figures, median, order, quantile, spread } from '../../bench/lib/statistics.mjs';
import { ROOT } from '../lib/paths.mjs';
import { filesBelow } from '../lib/stale.mjs';

/** Pairs in which reference, subject and the reference again took that long. */
const pairs = (...rows) => rows.map(([reference, subject, again]) => ({ reference, subject, again }));

test('the median is the middle value, or the mean of the two in the middle', () => {
  assert.equal(median([9, 1, 5]), 5);
  assert.equal(median([4, 1, 10, 2]), 3);
  assert.equal(median([7]), 7);
  assert.throws(() => median([]), RangeError);
});

test('the median compares numbers, and leaves its argument as it was', () => {
  const values = [10, 9, 100];
  assert.equal(median(values), 10);
  assert.deepEqual(values, [10, 9, 100]);
});

test('a spread and a quantile are values that were measured', () => {
  assert.deepEqual(spread([3, 1, 2]), { median: 2, min: 1, max: 3 });
  const values = Array.from({ length: 21 }, (_, index) => 20 - index);
  assert.deepEqual(
    [0, 0.1, 0.9, 1].map(part => quantile(values, part)),
    [0, 2, 18, 20],
  );
});

test('figures are taken pair by pair, not from the medians of both sides', () => {
  // The machine slows down tenfold in the middle: each pair still says 1.5.
  const got = figures(pairs([100, 150, 100], [1000, 1500, 1000], [200, 300, 200]));
  assert.deepEqual(got.ratio, { median: 1.5, min: 1.5, max: 1.5 });
  assert.deepEqual(got.extraNs, { median: 100, min: 50, max: 500 });
  assert.deepEqual(got.referenceNs, { median: 200, min: 100, max: 1000 });
  assert.deepEqual(got.noise.ratio, { median: 1, min: 1, max: 1 });
  assert.equal(got.pairs, 3);
  assert.equal(got.withinNoise, false);
});

test('a ratio inside what the reference shows against itself is within noise', () => {
  const wide = Array.from({ length: 10 }, (_, index) => [100, 103, 95 + index]);
  assert.equal(figures(pairs(...wide)).withinNoise, true);
  const narrow = wide.map(([reference, subject]) => [reference, subject, 101]);
  assert.equal(figures(pairs(...narrow)).withinNoise, false);
});

test('one interruption does not hide a result', () => {
  const calm = Array.from({ length: 19 }, () => [100, 110, 100]);
  assert.equal(figures(pairs(...calm, [100, 110, 400])).withinNoise, false);
});

test('the reference stands before and behind the subject in turn', () => {
  assert.deepEqual(order(0), ['reference', 'subject', 'again']);
  assert.deepEqual(order(1), ['again', 'subject', 'reference']);
});

test('a list of processors is read as the kernel writes it', () => {
  assert.deepEqual(parseCpuList('0-2,5'), [0, 1, 2, 5]);
  assert.deepEqual(parseCpuList('3'), [3]);
});

test('the table aligns figures, and says what there is none of', () => {
  const measured = { available: true, ...figures(pairs([1000, 1500, 1000], [1000, 1500, 1000])) };
  const lines = table({ a: measured, bcd: { available: false, reason: 'no such device' } });
  assert.match(lines[1], /^a    1\.00 µs {4}1\.50 µs {4}1\.500 \(1\.500 to 1\.500\)  0\.50 \(0\.50 to 0\.50\) µs/);
  assert.equal(lines[2], 'bcd  not available: no such device');
});

test('the table says in how many writes there was an exit', () => {
  const measured = { available: true, ...figures(pairs([1000, 1500, 1000], [1000, 1500, 1000])) };
  const line = exitsPerWrite => table({ a: { ...measured, exitsPerWrite } })[1];
  assert.match(line(1 / 170), /an exit in 170 writes$/);
  assert.match(line(0), /no exit$/);
  assert.equal(line(null), table({ a: measured })[1]);
});

test('the table says what 99 of 100 do not exceed', () => {
  const measured = { available: true, ...figures(pairs([20_000, 22_000, 20_000])), p99: null };
  const p99 = figures(pairs([30_000, 45_000, 30_000]));
  assert.match(table({ a: { ...measured, p99 } })[1], /p99 30\.00 and 45\.00 µs, ratio 1\.500$/);
  assert.doesNotMatch(table({ a: measured })[1], /p99/);
});

test('a program says the middle first, and the rest by name', async () => {
  const lines = ['ready', 'ns 12.5 exits=0.25 p99=40', 'ns 7', 'failed so'];
  const answer = `const lines = ${JSON.stringify(lines)}; console.log(lines.shift());
    require('readline').createInterface(process.stdin).on('line', () => console.log(lines.shift()));`;
  const child = await Child.start('a child', [process.execPath, '-e', answer]);
  assert.equal(await child.run(10), 12.5);
  assert.deepEqual(child.more, { exits: 0.25, p99: 40 });
  assert.equal(await child.run(10), 7);
  assert.deepEqual(child.more, {});
  await assert.rejects(child.run(10), /a child said: failed so/);
  await child.close();
});

test('the vCPU of a kick has a thread of its own on both sides', () => {
  const all = Object.entries(BENCHMARKS).filter(([name]) => name.startsWith('kick-'));
  assert.equal(all.length, 3);
  for (const [name, { reference, subject }] of all)
    assert.deepEqual([reference.processors, subject.processors], [2, 2], name);
});

test("a benchmark's own arguments go to its reference alone", () => {
  const { reference, subject } = BENCHMARKS['posted-ring'];
  assert.equal(reference.args.at(-1), String(PORT));
  assert.deepEqual(subject.args.slice(1), BENCHMARKS['exit-posted'].reference.args);
});

test('what takes less than a microsecond is shown in nanoseconds', () => {
  const short = { available: true, ...figures(pairs([40, 60, 40])) };
  assert.match(table({ a: short })[1], /^a  40\.0 ns {4}60\.0 ns {4}1\.500 .* 20\.0 \(20\.0 to 20\.0\) ns/);
});

test('every memory benchmark gives its reference the numbers that it gives the code under test', () => {
  const all = Object.entries(BENCHMARKS).filter(([name]) => /^(slots|read)-/.test(name));
  assert.equal(all.length, 22);
  for (const [name, { reference, subject }] of all)
    if (name.startsWith('slots-')) assert.deepEqual(subject.args, reference.args, name);
  const { SIZE, HERE, THERE, OTHERS_AT } = layout;
  assert.ok(HERE + SIZE <= THERE && THERE + SIZE <= OTHERS_AT, 'neither place of the slot overlaps the others');
});

test('every claim about a benchmark names one that there is, and its field of the JSON', () => {
  const claims = filesBelow(['claims']).filter(file => file.endsWith('.json'));
  const read = claims.map(file => JSON.parse(readFileSync(join(ROOT, file), 'utf8')));
  const ours = read.filter(({ command }) => command.startsWith('npm run -s bench'));
  assert.ok(ours.length >= 22);
  for (const { id, command, expect } of ours) {
    const named = command.replace('npm run -s bench -- ', '').replace(' --json', '').split(' ');
    for (const name of named) assert.ok(Object.hasOwn(BENCHMARKS, name), `${id}: no benchmark ${name}`);
    assert.ok(named.includes(expect.field.split('.')[1]), `${id}: its command does not run ${expect.field}`);
  }
});

test("the guest's loop and its way back lead where their comments say", () => {
  const { code } = portWrites;
  const target = at => at + 1 + new Int8Array(code.buffer)[at]; // of a jump whose last byte lies there
  assert.equal(code[target(code.lastIndexOf(0xe2) + 1)], 0xee, 'loop goes to out');
  assert.equal(target(code.length - 1), 0, 'jmp goes to the start');
  assert.equal(code[code.indexOf(0xba) + 1], PORT);
});

test('the guest that counts does so where it is looked at, and for ever', () => {
  const { code, countAt } = counter;
  assert.equal(Buffer.from(code).readUInt32LE(3), countAt);
  assert.equal(code.length + new Int8Array(code.buffer).at(-1), 0, 'jmp goes to the start');
});
