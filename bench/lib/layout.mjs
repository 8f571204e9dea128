// What lies where in the memory benchmarks: one description for the reference and for the code under test. All in bytes.

/** The slot that changes, and where it is moved to. */
export const SIZE = 0x1_0000;
export const HERE = 0x0;
export const THERE = 0x10_0000;

/** The other slots, a page each: where they begin, and from one to the next. No two touch. */
export const OTHERS_AT = 0x1_0000_0000;
export const STEP = 0x2000;

/** As many others as no ordinary VM has, and half of what KVM allows. */
export const MANY = 16_384;
