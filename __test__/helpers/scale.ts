/**
 * How often tests do a thing that they do over and over: in a machine of the lab, where closing a VM takes 24 ms and an
 * exit 100 times what it takes elsewhere, `TYPEVISOR_TEST_SCALE` (a fraction) makes loops shorter. It never touches what
 * is asserted of each round.
 */

const given = process.env['TYPEVISOR_TEST_SCALE'] ?? '1';
const SCALE = Number(given);
if (!(SCALE > 0 && SCALE <= 1)) throw new Error(`TYPEVISOR_TEST_SCALE must be a fraction, as 0.1; it is ${given}`);

/** `count`, or the part of it that this machine is up to: at least one. */
export function scaled(count: number): number {
  return Math.ceil(count * SCALE);
}

/** A time after which a thing has not happened: up to ten times as long where the machine is slow. */
export function patiently(ms: number): number {
  return ms * Math.min(1 / SCALE, 10);
}

/** A count as titles have it: `1,000`. */
export function inWords(count: number): string {
  return count.toLocaleString('en-US');
}
