//! Reserved tags, Close and Error packets.

use super::super::model::{Layout, Vector};
use super::{TASK, download, error};

pub(super) fn others() -> Vec<Vector> {
    let skip = "TAG-002 TAG-003 FRM-008";
    let close = "CLS-002";
    vec![
        Layout::header(0, 0x08, 0).vector(
            "pkt-reserved-001",
            "The first reserved tag, without a value",
            skip,
            "limit",
            "acceptable",
        ),
        Layout::header(9, 0xEF, 4).raw("skipped", &[0xFF; 4]).vector(
            "pkt-reserved-002",
            "A value that is not looked at",
            skip,
            "",
            "acceptable",
        ),
        Layout::header(9, 0xF0, 2).raw("skipped", &[0, 1]).vector(
            "pkt-reserved-003",
            "A request of an extension, from the experimental block",
            "TAG-002 TAG-003",
            "",
            "valid",
        ),
        Layout::header(9, 0xFD, 3).raw("skipped", b"abc").vector(
            "pkt-reserved-004",
            "The last reserved tag",
            skip,
            "limit",
            "acceptable",
        ),
        Layout::header(9, 0x80, 16_384).fill("skipped", 0xA5, 16_384).vector(
            "pkt-reserved-005",
            "The largest value",
            "TAG-002 FRM-011",
            "limit",
            "acceptable",
        ),
        Layout::header(9, 0x09, 74).raw("skipped", &download(7, 0x00, TASK, 1).bytes.expand()).vector(
            "pkt-reserved-006",
            "A value that looks like a packet, and is none",
            skip,
            "",
            "acceptable",
        ),
        Layout::header(9, 0x80, 16_385).vector(
            "pkt-reserved-101",
            "One above the largest Length",
            "FRM-011 FRM-013",
            "early limit",
            "too-long",
        ),
        Layout::header(9, 0x42, 4).junk(&[1, 2, 3]).vector(
            "pkt-reserved-102",
            "The last byte of the value is missing",
            "FRM-014 TAG-002",
            "limit",
            "truncated",
        ),
        Layout::header(9, 0x42, 4).junk(&[1, 2, 3, 4, 5]).vector(
            "pkt-reserved-103",
            "One byte more than Length",
            "FRM-015 TAG-002",
            "limit",
            "trailing-bytes",
        ),
        Layout::default().junk(b"GET / HTTP/1.1\r\n").vector(
            "pkt-reserved-104",
            "A request of HTTP: any six bytes are a header",
            "FRM-008 FRM-011 FRM-013",
            "early",
            "too-long",
        ),
        Layout::default().junk(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]).vector(
            "pkt-reserved-105",
            "The begin of a TLS record",
            "FRM-008 FRM-011",
            "early",
            "too-long",
        ),
        Layout::header(0, 0xFE, 0).vector("pkt-close-001", "Close", "CLS-001 TAG-001", "", "valid"),
        Layout::header(255, 0xFE, 0).vector(
            "pkt-close-002",
            "Close with another id",
            "CLS-001 TAG-001",
            "",
            "valid",
        ),
        Layout::header(1, 0xFE, 1).raw("skipped", &[0]).vector(
            "pkt-close-003",
            "Close with a value of one byte",
            close,
            "limit",
            "acceptable",
        ),
        Layout::header(1, 0xFE, 8).raw("skipped", b"\xFFgoodbye").vector(
            "pkt-close-004",
            "A value that is no text",
            close,
            "",
            "acceptable",
        ),
        Layout::header(1, 0xFE, 16_384).fill("skipped", 0, 16_384).vector(
            "pkt-close-005",
            "The largest value",
            close,
            "limit",
            "acceptable",
        ),
        Layout::header(1, 0xFE, 16_385).vector(
            "pkt-close-101",
            "One above the largest Length",
            "CLS-002 FRM-011",
            "early limit",
            "too-long",
        ),
        Layout::header(1, 0xFE, 2).junk(&[0]).vector(
            "pkt-close-102",
            "The last byte of the value is missing",
            "FRM-014",
            "limit",
            "truncated",
        ),
        Layout::header(1, 0xFE, 0).junk(&[0]).vector(
            "pkt-close-103",
            "One byte after Close",
            "FRM-015",
            "limit",
            "trailing-bytes",
        ),
    ]
}

pub(super) fn errors() -> Vec<Vector> {
    let layout = "ERR-001 FRM-001 TAG-001";
    let fill = |length: u32| {
        Layout::header(5, 0xFF, 1 + length).u8("code", 1).fill("message", b'm', length as usize)
    };
    vec![
        error(0, 1, "length 69, expected 68").vector(
            "pkt-error-001",
            "Invalid argument",
            layout,
            "",
            "valid",
        ),
        error(9, 2, "no such piece").vector("pkt-error-002", "Not found", layout, "", "valid"),
        error(9, 3, "disk failed").vector("pkt-error-003", "Internal", layout, "", "valid"),
        error(9, 2, "").vector(
            "pkt-error-004",
            "The code alone",
            "ERR-001 ERR-002 FRM-012",
            "limit",
            "valid",
        ),
        error(9, 3, "größe ☃ 🜁").vector(
            "pkt-error-005",
            "Characters of two, three and four bytes",
            "ERR-001 FRM-005",
            "",
            "valid",
        ),
        error(9, 3, "\u{0}\u{1b}[2J\r\n").vector(
            "pkt-error-006",
            "Control characters are text; whoever shows it makes them harmless",
            "ERR-001 SEC-001",
            "",
            "valid",
        ),
        fill(1024).vector("pkt-error-007", "The longest message that is sent", "ERR-003", "limit", "valid"),
        fill(1025).vector("pkt-error-008", "Longer than what is sent", "ERR-003", "limit", "acceptable"),
        fill(16_383).vector(
            "pkt-error-009",
            "The longest message that fits",
            "ERR-003 FRM-011",
            "limit",
            "acceptable",
        ),
        error(9, 0, "who knows").vector("pkt-error-010", "Code 0", "ERR-004", "", "acceptable"),
        error(9, 4, "later").vector(
            "pkt-error-011",
            "The first reserved code",
            "ERR-004 ERR-005",
            "limit",
            "acceptable",
        ),
        error(9, 255, "last").vector(
            "pkt-error-012",
            "The last code",
            "ERR-004 ERR-005",
            "limit",
            "acceptable",
        ),
        Layout::header(9, 0xFF, 0).vector(
            "pkt-error-101",
            "No code",
            "FRM-012 FRM-013 ERR-014",
            "early limit",
            "bad-length",
        ),
        Layout::header(9, 0xFF, 16_385).vector(
            "pkt-error-102",
            "One above the largest Length",
            "FRM-011",
            "early limit",
            "too-long",
        ),
        Layout::header(9, 0xFF, 9).u8("code", 1).junk(b"message").vector(
            "pkt-error-103",
            "The last byte is missing",
            "FRM-014",
            "limit",
            "truncated",
        ),
        error(9, 1, "message").junk(&[0]).vector(
            "pkt-error-104",
            "A terminator after the message",
            "FRM-005 FRM-015",
            "",
            "trailing-bytes",
        ),
    ]
}
