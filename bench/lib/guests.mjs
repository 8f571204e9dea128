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

/**
 * Ring 3 of long mode, the first addresses mapped to themselves: counts for ever, in the 32-bit number at `countAt`. Native
 * code even where a KVM interprets the other modes.
 */
export const counter = {
  code: assembled(
    'ff 04 25 00 08 00 00', // start: inc dword [0x0800]
    'eb f7', //                     jmp start
  ),
  entry: 0x1000,
  countAt: 0x0800,
  slotSize: 0x1_0000,
};

/** What the programs are told of a guest, in this order. */
export function inArguments({ code, entry, countAt, slotSize }) {
  return [Buffer.from(code).toString('hex'), ...[entry, countAt, slotSize].map(String)];
}

function assembled(...lines) {
  return Uint8Array.from(lines.join(' ').split(' '), byte => Number.parseInt(byte, 16));
}
