// From measured pairs to figures. Pure. Why pairs: speed drifts by more than what we look for, but drifts slowly, so that
// two runs side by side differ by what differs between them.

/** The middle value; of an even number of values the mean of the two in the middle. */
export function median(values) {
  if (values.length === 0) throw new RangeError('the median of nothing');
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** The value below which the share `part` (0 to 1) of the values lies: the nearest one there is. */
export function quantile(values, part) {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.round(part * (sorted.length - 1))];
}

/** `{ median, min, max }`. */
export function spread(values) {
  return { median: median(values), min: Math.min(...values), max: Math.max(...values) };
}

/**
 * The figures of one benchmark. Each pair holds times of one operation in nanoseconds: `reference`, `subject` (the code
 * under test), and `again`, the reference once more.
 *
 * `ratio` and `extraNs` compare pair by pair; `noise` holds the same two for the reference against itself. A median that
 * lies where the middle eight tenths of those lie is no result: `withinNoise`. (Not all of them: one interruption in one
 * of twenty pairs would hide everything.)
 */
export function figures(pairs) {
  const compare = side => ({
    ratio: spread(pairs.map(pair => pair[side] / pair.reference)),
    extraNs: spread(pairs.map(pair => pair[side] - pair.reference)),
  });
  const found = compare('subject');
  const noise = compare('again');
  const itself = pairs.map(({ reference, again }) => again / reference);
  const [low, high] = [quantile(itself, 0.1), quantile(itself, 0.9)];
  return {
    pairs: pairs.length,
    referenceNs: spread(pairs.map(({ reference }) => reference)),
    subjectNs: spread(pairs.map(({ subject }) => subject)),
    ...found,
    noise,
    withinNoise: found.ratio.median >= low && found.ratio.median <= high,
  };
}

/**
 * In which order to run the three in round `round`. The reference stands before the subject in one round and behind it
 * in the next: a drift that makes everything slower cancels out.
 */
export function order(round) {
  return round % 2 === 0 ? ['reference', 'subject', 'again'] : ['again', 'subject', 'reference'];
}
