// The logic of `npm run claims`: a claim's file to a claim, its command's end to a verdict. Pure.

const KEYS = new Set(['id', 'sentence', 'command', 'expect', 'needs', 'timeoutS']);
const BOUNDS = new Set(['min', 'max', 'field']);
export const NEEDS = ['kvm', 'lab', 'root'];
/** The exit code by which a command says that this machine cannot show the claim; its last stderr line says why. */
export const NOT_HERE = 77;

/**
 * Reads one claim file's text. Throws an Error that says what is wrong with it.
 * `expect` is a value (compared with the output, trimmed), `{ regex }`, or `{ min, max, field }`.
 */
export function parseClaim(text, file) {
  const claim = JSON.parse(text);
  const wrong = problemOf(claim);
  if (wrong) throw new Error(`${file}: ${wrong}`);
  if (file !== `${claim.id}.json`) throw new Error(`${file}: its id is ${claim.id}; name the file after it`);
  return { needs: [], timeoutS: 300, ...claim };
}

function problemOf(claim) {
  const unknown = Object.keys(claim).find(key => !KEYS.has(key));
  if (unknown) return `unknown key "${unknown}"`;
  for (const key of ['id', 'sentence', 'command'])
    if (typeof claim[key] !== 'string') return `"${key}" must be a string`;
  if (claim.expect === undefined) return '"expect" is missing';
  const need = (claim.needs ?? []).find(name => !NEEDS.includes(name));
  if (need) return `unknown need "${need}" (there are: ${NEEDS.join(', ')})`;
  if (typeof claim.expect !== 'object') return undefined;
  const keys = Object.keys(claim.expect);
  const isRegex = keys.length === 1 && keys[0] === 'regex';
  const isBound = keys.every(key => BOUNDS.has(key)) && (keys.includes('min') || keys.includes('max'));
  return isRegex || isBound ? undefined : '"expect" must be a value, { regex } or { min and/or max, field? }';
}

/** The verdict on a command's end: `{ verdict: 'PASS' | 'FAIL' | 'NOT HERE', figure?, reason? }`. */
export function judge(claim, { status, signal, timedOut, stdout, stderr }) {
  const lastError = stderr.trim().split('\n').at(-1);
  if (timedOut) return fail(`no end after ${claim.timeoutS} s`);
  if (status === NOT_HERE) return { verdict: 'NOT HERE', reason: lastError || 'the command gave no reason' };
  if (status !== 0) return fail(`${signal ?? `exit code ${status}`}: ${lastError || 'nothing on stderr'}`);
  const { expect } = claim;
  if (typeof expect !== 'object') return compare(stdout.trim(), String(expect));
  if (expect.regex === undefined) return judgeBound(expect, stdout);
  const found = new RegExp(expect.regex, 'm').exec(stdout);
  return found ? pass(found[0]) : fail(`nothing printed matches /${expect.regex}/`, lastLine(stdout));
}

function compare(got, wanted) {
  return got === wanted ? pass(got) : fail(`expected ${wanted}`, lastLine(got));
}

function judgeBound({ min, max, field }, stdout) {
  const figure = field === undefined ? lastNumber(stdout) : numberAt(stdout, field);
  if (figure === undefined) return fail(field === undefined ? 'no number printed' : `no number in JSON field ${field}`);
  if (min !== undefined && figure < min) return fail(`below ${min}`, figure);
  if (max !== undefined && figure > max) return fail(`above ${max}`, figure);
  return pass(figure);
}

function lastNumber(text) {
  const found = text.match(/-?\d+(?:\.\d+)?(?:e[+-]?\d+)?/gi);
  return found ? Number(found.at(-1)) : undefined;
}

/** The number at `a.b.0.c` of the JSON that was printed. */
function numberAt(stdout, field) {
  try {
    const value = field.split('.').reduce((at, key) => at?.[key], JSON.parse(stdout));
    return typeof value === 'number' ? value : undefined;
  } catch {
    return undefined;
  }
}

const pass = figure => ({ verdict: 'PASS', figure });
const fail = (reason, figure) => ({ verdict: 'FAIL', reason, ...(figure !== undefined && { figure }) });
const lastLine = text => text.trim().split('\n').at(-1);

/** The table that people read: id, verdict, figure, and the reason where there is one. */
export function table(results) {
  const width = Math.max(...results.map(({ id }) => id.length));
  return results.map(({ id, verdict, figure, reason }) => {
    const detail = [figure, reason].filter(part => part !== undefined && part !== '').join('; ');
    return `${id.padEnd(width)}  ${verdict.padEnd(8)}  ${detail}`.trimEnd();
  });
}
