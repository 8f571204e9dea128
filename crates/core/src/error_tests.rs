//! What messages say.

use super::*;

#[test]
fn messages_count_bytes_and_name_what_was_asked() {
    let messages = [
        (Error::ExitUnanswered { size: 1 }, "the last exit wants an answer of 1 byte; call answer() before running on"),
        (Error::AnswerSize { expected: 2, given: 1 }, "the last exit wants an answer of 2 bytes, not 1"),
        (Error::AnswerRange { size: 1 }, "the last exit wants 1 byte: answer with a number that fits, or with 1 byte"),
        (
            Error::ClaimOverlap { what: "ports", new: 0x10..0x14, old: 0x13..0x15 },
            "ports 0x10..0x14 overlap 0x13..0x15, which is claimed; release that claim first",
        ),
    ];
    for (error, message) in messages {
        assert_eq!(error.to_string(), message);
    }
}
