// The report of the kernel's selftests: a table test × machine, and what each had to say. Pure.
import { VERDICTS } from './verdict.mjs';

/** `{ machine, version, results: [{ name, verdict, seconds, said }] }` of several machines, as a table for people. */
export function table(reports) {
  const names = [...new Set(reports.flatMap(({ results }) => results.map(({ name }) => name)))];
  const rows = [
    ['test', ...reports.map(({ machine }) => machine)],
    ...names.map(name => [name].concat(reports.map(report => cell(report, name)))),
  ];
  return textTable(rows);
}

/** Rows of texts, each column as wide as it needs to be. */
export function textTable(rows) {
  const widths = rows[0].map((_, column) => Math.max(...rows.map(row => row[column].length)));
  return rows
    .map(row =>
      row
        .map((text, column) => text.padEnd(widths[column]))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

function cell({ results }, name) {
  return results.find(result => result.name === name)?.verdict ?? '-';
}

/** How many of each verdict: `80 pass, 12 skip`. */
export function summary(results) {
  const count = verdict => results.filter(result => result.verdict === verdict).length;
  const counts = VERDICTS.map(verdict => [count(verdict), verdict]).filter(([number]) => number > 0);
  return counts.map(([number, verdict]) => `${number} ${verdict}`).join(', ') || 'none ran';
}

/** One line for a test that has ended. */
export function resultLine({ name, verdict, seconds, said }, width) {
  const why = verdict === 'pass' || !said ? '' : `  ${said}`;
  return `${verdict.padEnd(8)} ${name.padEnd(width)} ${seconds.toFixed(1).padStart(6)} s${why}`;
}

/** The lines for those that did not pass, machine by machine. */
export function reasons(reports) {
  return reports.flatMap(({ machine, results }) =>
    results
      .filter(({ verdict }) => verdict !== 'pass')
      .map(({ name, verdict, said }) => `${machine}: ${name}: ${verdict}${said ? `: ${said}` : ''}`),
  );
}

/** The JSON of one machine's report, with keys in a fixed order, so that two runs can be compared as text. */
export function json({ machine, version, kernel, timeoutS, results }) {
  return `${JSON.stringify({ schemaVersion: 1, machine, version, kernel, timeoutS, results }, null, 2)}\n`;
}
