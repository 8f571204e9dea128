// The rules of `scripts/tidy.mjs`: pure functions from a file's path and text to what is wrong with it.

/** A file outside tests that is longer wants a wall. */
const MAX_LINES = 400;
const SOURCE = /\.(rs|ts|mts|mjs|sh|c)$/;
const IS_TEST = /(^|\/)(tests?|__test__)\//;
const IS_GENERATED = /@generated/;

/**
 * Lines that must stand nowhere: a pattern, what is wrong, and the files that it concerns. The brackets around single
 * letters keep a pattern from finding itself.
 */
const FORBIDDEN = [
  [/(^|[^\w.~${}])\/(work|root|home)\/\w/, 'a path of one machine'],
  [/registry\.npmjs|npm[m]irror|(index|static)\.crates\.io|python[h]osted\.org/, 'a registry host'],
  [/\b(deb|security|archive|ports)\.(debian|ubuntu)\.(org|com)/, 'a registry host'],
  [/\b(todo|unimplemented)!\s*\(/, 'unfinished code', SOURCE],
  [/\b(FIX[M]E|XX[X])\b/, 'unfinished code; mend it, or write TODO(#12) with its issue', SOURCE],
  [/(\/\/|\/?\*|^\s*#).*\bTO[D]O\b(?!\(#\d+\))/, 'unfinished code without its issue: TODO(#12)', SOURCE],
  [/@ts-(ignore|nocheck)\b/, 'a check switched off', SOURCE],
  [/\btest\.only\(|#\[ignore\]/, 'a test that hides others, or hides without a reason', SOURCE],
];

/** Everything wrong with one file, as `{ line, message }`; line 0 is the file as a whole. */
export function problemsOf(path, text) {
  return [
    ...forbidden(path, text),
    ...tooLong(path, text),
    ...uncaughtPanics(path, text),
    ...recordedHosts(path, text),
  ];
}

function forbidden(path, text) {
  const rules = FORBIDDEN.filter(([, , files]) => !files || files.test(path));
  return text
    .split('\n')
    .flatMap((line, index) =>
      rules.filter(([pattern]) => pattern.test(line)).map(([, message]) => ({ line: index + 1, message })),
    );
}

function tooLong(path, text) {
  if (!SOURCE.test(path) || IS_TEST.test(path) || IS_GENERATED.test(text.slice(0, 500))) return [];
  const lines = text.split('\n').length - 1;
  return lines > MAX_LINES ? [{ line: 0, message: `${lines} lines; at most ${MAX_LINES}, tests apart` }] : [];
}

/** Every function that napi-rs exports must catch panics: one that leaves it aborts Node.js. */
function uncaughtPanics(path, text) {
  if (!path.startsWith('crates/node/') || !path.endsWith('.rs')) return [];
  const lines = text.split('\n');
  const problems = [];
  for (let i = 0; i < lines.length; i += 1) {
    if (!/^\s*#\[napi\b/.test(lines[i])) continue;
    const { attribute, item } = napiItem(lines, i);
    const isFunction = /^\s*(pub(\([^)]*\))? )?((async|const|unsafe|extern "C") )*fn\b/.test(item);
    if (isFunction && !/\bcatch_unwind\b/.test(attribute))
      problems.push({ line: i + 1, message: '#[napi] without catch_unwind' });
  }
  return problems;
}

/** The attribute that starts at line `at`, and the first line after it that is no attribute or comment. */
function napiItem(lines, at) {
  let end = at;
  while (!lines[end].trimEnd().endsWith(']') && end + 1 < lines.length) end += 1;
  const attribute = lines.slice(at, end + 1).join(' ');
  const item = lines.slice(end + 1).find(line => !/^\s*(#\[|\/\/|$)/.test(line)) ?? '';
  return { attribute, item };
}

/** A lockfile records what was installed, not from which host. */
function recordedHosts(path, text) {
  if (!path.endsWith('package-lock.json')) return [];
  return text
    .split('\n')
    .flatMap((line, index) =>
      /"resolved": "https?:/.test(line)
        ? [{ line: index + 1, message: 'a download address; .npmrc has the setting that prevents it' }]
        : [],
    );
}
