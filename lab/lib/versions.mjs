// Debian's order of versions (deb-version(7)): `~` sorts before the end, digits as numbers, letters before other signs.

/** Negative, zero or positive, as version `a` is older than, the same as or newer than `b`. */
export function compareVersions(a, b) {
  const [left, right] = [split(a), split(b)];
  return (
    left.epoch - right.epoch ||
    compareParts(left.upstream, right.upstream) ||
    compareParts(left.revision, right.revision)
  );
}

function split(version) {
  const [, epoch, rest] = /^(?:(\d+):)?(.*)$/.exec(version);
  const dash = rest.lastIndexOf('-');
  const upstream = dash < 0 ? rest : rest.slice(0, dash);
  return { epoch: Number(epoch ?? 0), upstream, revision: dash < 0 ? '' : rest.slice(dash + 1) };
}

/** Compares runs of other signs and runs of digits in turn. */
function compareParts(a, b) {
  const [left, right] = [runs(a), runs(b)];
  for (let i = 0; i < Math.max(left.length, right.length); i += 1) {
    const [x, y] = [left[i] ?? '', right[i] ?? ''];
    const difference = i % 2 === 0 ? compareSigns(x, y) : Number(x) - Number(y);
    if (difference !== 0) return difference;
  }
  return 0;
}

/** `1.2~rc` as `['', '1', '.', '2', '~rc']`: signs at even places, digits at odd ones. */
function runs(text) {
  return [...text.matchAll(/(\D*)(\d*)/g)].flatMap(([, signs, digits]) => [signs, digits]);
}

function compareSigns(a, b) {
  for (let i = 0; i < Math.max(a.length, b.length); i += 1) {
    const difference = weight(a[i]) - weight(b[i]);
    if (difference !== 0) return difference;
  }
  return 0;
}

function weight(sign) {
  if (sign === undefined) return 0;
  if (sign === '~') return -1;
  return /[A-Za-z]/.test(sign) ? sign.codePointAt(0) : sign.codePointAt(0) + 256;
}
