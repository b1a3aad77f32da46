//! Packets in which two checks fail.

use super::super::model::{Layout, Vector};
use super::{CONTENT, Content, TASK, begun, download};

pub(super) fn order() -> Vec<Vector> {
    let ordered = "FRM-010 ERR-014";
    let upper = TASK.to_uppercase();
    let fields = CONTENT.fields();
    let huge = Content { length: u64::MAX, ..CONTENT };
    vec![
        Layout::header(1, 0x00, 16_385).vector(
            "pkt-order-001",
            "Above the limit, and not what the tag allows",
            ordered,
            "early",
            "too-long",
        ),
        Layout::header(1, 0x00, 69).junk(&[0xFF; 3]).vector(
            "pkt-order-002",
            "Not what the tag allows, and the value is incomplete",
            ordered,
            "early",
            "bad-length",
        ),
        Layout::header(1, 0x00, 68).junk(&upper.as_bytes()[..20]).vector(
            "pkt-order-003",
            "Incomplete, and what is there is no task id",
            ordered,
            "",
            "truncated",
        ),
        download(1, 0x00, &upper, 1).junk(&[0]).vector(
            "pkt-order-004",
            "No task id, and a byte after the packet",
            ordered,
            "",
            "bad-task-id",
        ),
        huge.lying(4 + fields, fields + 1).vector(
            "pkt-order-005",
            "Metadata length and piece length",
            ordered,
            "",
            "bad-metadata",
        ),
        Layout::header(5, 0x01, 88)
            .u32("metadata_length", 84)
            .u32("number", 1)
            .u64("offset", 0)
            .u64("piece_length", u64::MAX)
            .u32("digest_length", u32::MAX)
            .junk(&[0; 60])
            .vector("pkt-order-006", "Piece length and digest length", ordered, "", "bad-piece-length"),
        begun(400).u32("digest_length", 500).junk(&[0xFF; 372]).vector(
            "pkt-order-007",
            "The digest does not fit, is above its limit and is no text",
            ordered,
            "",
            "bad-metadata",
        ),
        begun(400).u32("digest_length", 300).junk(&[0xFF; 372]).vector(
            "pkt-order-008",
            "The digest is above its limit and is no text",
            ordered,
            "",
            "field-too-long",
        ),
        begun(92).u32("digest_length", 61).junk(&[0xFF; 61]).junk(&[0; 3]).vector(
            "pkt-order-009",
            "The digest is no text, and too little follows it",
            ordered,
            "",
            "not-utf8",
        ),
        begun(1100).u32("digest_length", 0).u32("parent_id_length", 1060).junk(&[0xFF; 1068]).vector(
            "pkt-order-010",
            "The parent id is above its limit, is no text, and too little follows it",
            ordered,
            "",
            "field-too-long",
        ),
        begun(60).u32("digest_length", 0).u32("parent_id_length", 20).junk(&[0xFF; 28]).vector(
            "pkt-order-011",
            "The parent id is no text, and too little follows it",
            ordered,
            "",
            "not-utf8",
        ),
        Layout::header(5, 0xFF, 3).u8("code", 1).junk(&[0xFF; 3]).vector(
            "pkt-order-012",
            "The message is no text, and a byte follows the packet",
            ordered,
            "",
            "not-utf8",
        ),
    ]
}
