/** Sizes in bytes, so that code reads `64 * MiB`. */

/** 1,024 bytes. */
export const KiB: number = 1024;
/** 1,024 KiB: 1,048,576 bytes. */
export const MiB: number = 1024 * KiB;
/** 1,024 MiB: 1,073,741,824 bytes. */
export const GiB: number = 1024 * MiB;
