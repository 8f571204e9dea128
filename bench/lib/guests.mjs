// The guests of the benchmarks: one description for the reference and for the code under test, so that both run the same
// bytes at the same privilege in a slot of the same size.

/** The port that is written to; no device of a PC answers it. */
export const PORT = 0x80;

/**
 * Real mode: writes to the port as often as the 32-bit number at `countAt` says, then halts; run on, it does so again.
 * Between two writes stands one instruction, so that the exit is all there is to measure.
 */
export const portWrites = {
  code: assembled(
    '66 8b 0e 00 08', // start: mov ecx, [0x0800]
    'ba 80 00', //              mov dx, PORT
    'ee', //             again: out dx, al
    '67 e2 fc', //              loop again (counts in ecx)
    'f4', //                    hlt
    'eb f1', //                 jmp start
  ),
  entry: 0x1000,
  countAt: 0x0800,
  slotSize: 0x1_0000,
};

function assembled(...lines) {
  return Uint8Array.from(lines.join(' ').split(' '), byte => Number.parseInt(byte, 16));
}
