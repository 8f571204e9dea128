// Results as people read them. Pure.

/** One table; times per operation, in nanoseconds where one takes less than a microsecond, else in microseconds. */
export function table(results) {
  const rows = Object.entries(results).map(([name, result]) => (result.available ? cells(name, result) : [name]));
  const head = ['', 'reference', 'Typevisor', 'ratio', 'added', 'A / A', ''];
  const widths = head.map((title, column) => Math.max(title.length, ...rows.map(row => row[column]?.length ?? 0)));
  const line = row => row.map((cell, column) => cell.padEnd(widths[column])).join('  ');
  return [
    line(head),
    ...rows.map(row =>
      row.length > 1 ? line(row) : `${row[0].padEnd(widths[0])}  not available: ${results[row[0]].reason}`,
    ),
  ].map(text => text.trimEnd());
}

function cells(name, { referenceNs, subjectNs, ratio, extraNs, noise, withinNoise, p99, exitsPerWrite }) {
  const { unit, show } = referenceNs.median < 1000 ? NANOS : MICROS;
  return [
    name,
    `${show(referenceNs.median)} ${unit}`,
    `${show(subjectNs.median)} ${unit}`,
    range(ratio, value => value.toFixed(3)),
    `${range(extraNs, show)} ${unit}`,
    range(noise.ratio, value => value.toFixed(3)),
    [withinNoise ? 'within noise' : '', tail(p99), exitsIn(exitsPerWrite)].filter(Boolean).join(', '),
  ];
}

/** What 99 of 100 operations do not exceed, where that is measured. */
function tail(p99) {
  if (!p99) return '';
  const { referenceNs, subjectNs, ratio } = p99;
  const [reference, subject] = [referenceNs, subjectNs].map(({ median }) => MICROS.show(median));
  return `p99 ${reference} and ${subject} µs, ratio ${ratio.median.toFixed(3)}`;
}

/** How many of the guest's writes stopped it, where that is not each of them. */
function exitsIn(exitsPerWrite) {
  if (typeof exitsPerWrite !== 'number') return '';
  return exitsPerWrite === 0 ? 'no exit' : `an exit in ${Math.round(1 / exitsPerWrite)} writes`;
}

const NANOS = { unit: 'ns', show: ns => ns.toFixed(1) };
const MICROS = { unit: 'µs', show: ns => (ns / 1000).toFixed(2) };

function range({ median, min, max }, show) {
  return `${show(median)} (${show(min)} to ${show(max)})`;
}
