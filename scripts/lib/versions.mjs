// Version numbers as tools print them: `v20.19.0`, `rustc 1.88.0 (…)`, `1.96.0+dfsg1-1~deb12u2`.

/** The first dotted number in a text, as numbers; undefined if there is none. */
export function versionIn(text) {
  const found = /(\d+)\.(\d+)(?:\.(\d+))?/.exec(text ?? '');
  return found?.slice(1).map(part => Number(part ?? 0));
}

/** Whether version `a` is at least `b`, both as `versionIn` gives them. */
export function atLeast(a, b) {
  for (let i = 0; i < Math.max(a.length, b.length); i += 1) {
    const difference = (a[i] ?? 0) - (b[i] ?? 0);
    if (difference !== 0) return difference > 0;
  }
  return true;
}
