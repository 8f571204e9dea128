// May this licence be linked into or used for a work under MIT OR Apache-2.0? SPDX expressions, read strictly.

const PERMISSIVE = new Set([
  '0BSD',
  'Apache-2.0',
  'Apache-2.0 WITH LLVM-exception',
  'BSD-2-Clause',
  'BSD-3-Clause',
  'BSL-1.0',
  'BlueOak-1.0.0',
  'CC0-1.0',
  'ISC',
  'MIT',
  'MIT-0',
  'Unicode-3.0',
  'Unlicense',
  'Zlib',
]);

/** Whether an SPDX expression leaves a permissive choice: one side of each OR, both of each AND. */
export function isPermissive(expression) {
  // crates.io's older "MIT/Apache-2.0" means OR.
  const tokens = expression.replaceAll('/', ' OR ').match(/[()]|[\w.+-]+/g) ?? [];
  const [verdict, rest] = anyOf(tokens);
  return verdict && rest.length === 0;
}

function anyOf(tokens) {
  let [verdict, rest] = allOf(tokens);
  while (rest[0] === 'OR') {
    const [next, after] = allOf(rest.slice(1));
    [verdict, rest] = [verdict || next, after];
  }
  return [verdict, rest];
}

function allOf(tokens) {
  let [verdict, rest] = one(tokens);
  while (rest[0] === 'AND') {
    const [next, after] = one(rest.slice(1));
    [verdict, rest] = [verdict && next, after];
  }
  return [verdict, rest];
}

function one(tokens) {
  if (tokens[0] === '(') {
    const [verdict, rest] = anyOf(tokens.slice(1));
    return rest[0] === ')' ? [verdict, rest.slice(1)] : [false, rest];
  }
  if (tokens[1] === 'WITH') return [PERMISSIVE.has(tokens.slice(0, 3).join(' ')), tokens.slice(3)];
  return [PERMISSIVE.has(tokens[0]), tokens.slice(1)];
}
