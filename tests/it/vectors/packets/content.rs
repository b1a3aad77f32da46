//! Content packets.

use super::super::model::{Layout, Vector};
use super::{CONTENT, CRC, Content, SHA256, TAIL, begun};

pub(super) fn contents() -> Vec<Vector> {
    let layout = "FRM-001 FRM-002 FRM-003 FRM-004 TAG-001 CNT-001 CNT-002 CNT-005";
    let of = |content: Content<'_>| content.lay();
    let sha512 = format!("sha512:{}", "0123456789abcdef".repeat(8));
    let long_digest = format!("long:{}", "d".repeat(251));
    let upper = SHA256.to_uppercase().replace("SHA256", "sha256");
    let parent = "p".repeat(1024);
    let seen = "CNT-004";
    vec![
        of(CONTENT).vector(
            "pkt-content-001",
            "A piece of 9 bytes; the content is not part of the packet, and Length does not count it",
            &format!("{layout} DIG-001 DIG-004 CNT-014"),
            "",
            "valid",
        ),
        of(Content { tag: 0x03, ..CONTENT }).vector(
            "pkt-content-002",
            "Of a persistent piece",
            layout,
            "",
            "valid",
        ),
        of(Content { tag: 0x05, ..CONTENT }).vector(
            "pkt-content-003",
            "Of a persistent cache piece",
            layout,
            "",
            "valid",
        ),
        of(Content { tag: 0x07, ..CONTENT }).vector(
            "pkt-content-004",
            "Of a cache piece",
            layout,
            "",
            "valid",
        ),
        of(Content { digest: SHA256, ..CONTENT }).vector(
            "pkt-content-005",
            "With sha256",
            "DIG-001 DIG-005 CNT-001",
            "",
            "valid",
        ),
        of(Content { digest: &sha512, ..CONTENT }).vector(
            "pkt-content-006",
            "With sha512",
            "DIG-001 DIG-005 CNT-001",
            "",
            "valid",
        ),
        of(Content { length: 0, digest: "crc32:0", offset: 0, number: 0, ..CONTENT }).vector(
            "pkt-content-007",
            "An empty piece: no content follows",
            "CNT-001 CNT-017 REQ-006 DIG-002",
            "limit",
            "valid",
        ),
        of(Content { length: 1 << 30, ..CONTENT }).vector(
            "pkt-content-008",
            "The largest piece",
            "CNT-001 CNT-010",
            "limit",
            "valid",
        ),
        of(Content { parent_id: "", ..CONTENT }).vector(
            "pkt-content-009",
            "No parent id",
            "CNT-001 CNT-012",
            "limit",
            "valid",
        ),
        of(Content { parent_id: &parent, ..CONTENT }).vector(
            "pkt-content-010",
            "The longest parent id",
            "CNT-001 CNT-012 CNT-013",
            "limit",
            "valid",
        ),
        of(Content { parent_id: "größe-☃-🜁", ..CONTENT }).vector(
            "pkt-content-011",
            "Characters of two, three and four bytes",
            "CNT-001 FRM-005",
            "",
            "valid",
        ),
        of(Content { number: u32::MAX, offset: u64::MAX, ..CONTENT }).vector(
            "pkt-content-012",
            "The largest number and offset",
            "CNT-001 CNT-006 CNT-008 FRM-003",
            "limit",
            "valid",
        ),
        of(Content { traffic_type: 0, ..CONTENT }).vector(
            "pkt-content-013",
            "Traffic type 0",
            "CNT-016 CNT-014",
            "",
            "valid",
        ),
        of(Content { traffic_type: 255, ..CONTENT }).vector(
            "pkt-content-014",
            "A traffic type that is not assigned",
            "CNT-016",
            "limit",
            "valid",
        ),
        of(Content { cost: u64::MAX, ..CONTENT }).vector(
            "pkt-content-015",
            "The largest cost",
            "CNT-015 CNT-016",
            "limit",
            "valid",
        ),
        of(Content { created_at: 0, ..CONTENT }).vector(
            "pkt-content-016",
            "Created in 1970",
            "CNT-016",
            "",
            "valid",
        ),
        of(Content { created_at: -1, ..CONTENT }).vector(
            "pkt-content-017",
            "Created a second before 1970",
            "CNT-016",
            "",
            "valid",
        ),
        of(Content { created_at: i64::MIN, ..CONTENT }).vector(
            "pkt-content-018",
            "The earliest date. The published codec refuses it",
            "CNT-016",
            "limit deployed-differs",
            "valid",
        ),
        of(Content { created_at: i64::MAX, ..CONTENT }).vector(
            "pkt-content-019",
            "The latest date. The published codec refuses it",
            "CNT-016",
            "limit deployed-differs",
            "valid",
        ),
        of(Content { digest: "", ..CONTENT }).vector(
            "pkt-content-021",
            "No digest: the packet decodes; a Client rejects the answer unless it is lenient",
            "CNT-003 DIG-011",
            "deployed-differs",
            "acceptable",
        ),
        of(Content { digest: "", parent_id: "", length: 0, ..CONTENT }).vector(
            "pkt-content-022",
            "The smallest metadata: a Length of 49",
            "FRM-012",
            "limit",
            "acceptable",
        ),
        of(Content { digest: "crc32:864bbb04", ..CONTENT }).vector(
            "pkt-content-023",
            "A CRC in hexadecimal, as the published text has it",
            "DIG-007",
            "deployed-differs",
            "acceptable",
        ),
        of(Content { digest: "crc32:12345678", ..CONTENT }).vector(
            "pkt-content-024",
            "A CRC with two readings",
            "DIG-006 DIG-007 DIG-008",
            "",
            "valid",
        ),
        of(Content { digest: &upper, ..CONTENT }).vector(
            "pkt-content-025",
            "A hash in upper case",
            "DIG-009",
            "",
            "acceptable",
        ),
        of(Content { digest: "blake3:00", ..CONTENT }).vector(
            "pkt-content-026",
            "An algorithm that nobody here knows: the packet decodes",
            "DIG-012",
            "",
            "acceptable",
        ),
        of(Content { digest: "3421780262", ..CONTENT }).vector(
            "pkt-content-027",
            "A digest without a colon: the packet decodes, and a Client rejects the answer",
            "DIG-010",
            "",
            "acceptable",
        ),
        of(Content { digest: &long_digest, ..CONTENT }).vector(
            "pkt-content-028",
            "The longest digest",
            "CNT-013",
            "limit",
            "acceptable",
        ),
        CONTENT.appended(1).raw("appended", &[0]).vector(
            "pkt-content-031",
            "One appended byte",
            seen,
            "limit",
            "acceptable",
        ),
        CONTENT.appended(13).raw("appended", b"\xFF\xFElater field").vector(
            "pkt-content-032",
            "Appended bytes, not all of them text",
            seen,
            "",
            "acceptable",
        ),
        CONTENT.appended(16_384 - 49 - 16 - 15).fill("appended", 0xEE, 16_384 - 49 - 16 - 15).vector(
            "pkt-content-033",
            "Appended bytes up to the largest Length",
            "CNT-004 FRM-011",
            "limit",
            "acceptable",
        ),
    ]
}

pub(super) fn bad_contents() -> Vec<Vector> {
    let fields = CONTENT.fields();
    let agree = "CNT-003 ERR-014";
    let piece = "CNT-010 ERR-014";
    let whole = CONTENT.lay().bytes.expand();
    let of = |content: Content<'_>| content.lay();
    vec![
        CONTENT.lying(4 + fields, fields - 1).vector(
            "pkt-content-101",
            "Metadata length one too small",
            agree,
            "limit",
            "bad-metadata",
        ),
        CONTENT.lying(4 + fields, fields + 1).vector(
            "pkt-content-102",
            "Metadata length one too large",
            agree,
            "limit",
            "bad-metadata",
        ),
        CONTENT.lying(4 + fields, fields + 4).vector(
            "pkt-content-103",
            "Metadata length counts itself",
            "CNT-002 CNT-003",
            "",
            "bad-metadata",
        ),
        CONTENT.lying(4 + fields, 0).vector(
            "pkt-content-104",
            "Metadata length 0",
            agree,
            "",
            "bad-metadata",
        ),
        CONTENT.lying(4 + fields, u32::MAX).vector(
            "pkt-content-105",
            "Metadata length of 4 GiB",
            agree,
            "limit",
            "bad-metadata",
        ),
        CONTENT.lying(4 + fields + 9, fields).junk(b"123456789").vector(
            "pkt-content-106",
            "The usual mistake: the content is in the packet, and Length counts it",
            "FRM-004 CNT-003 CNT-017",
            "deployed-differs",
            "bad-metadata",
        ),
        CONTENT.lay().junk(b"123456789").vector(
            "pkt-content-107",
            "The content directly after the packet, in a buffer for one packet",
            "FRM-015 CNT-017",
            "",
            "trailing-bytes",
        ),
        Layout::header(5, 0x01, 48).junk(&[0, 0, 0, 44]).junk(&[0; 44]).vector(
            "pkt-content-111",
            "One byte less than the smallest metadata",
            "FRM-012 FRM-013 ERR-014",
            "limit",
            "bad-length",
        ),
        Layout::header(5, 0x07, 0).vector(
            "pkt-content-112",
            "An empty value",
            "FRM-012 FRM-013",
            "early",
            "bad-length",
        ),
        Layout::header(5, 0x01, 16_385).vector(
            "pkt-content-113",
            "One above the largest Length",
            "FRM-011 FRM-013",
            "early limit",
            "too-long",
        ),
        Layout::header(5, 0x01, 0x4000_0058).vector(
            "pkt-content-114",
            "Length counts a content of 1 GiB",
            "FRM-004 FRM-011 FRM-016",
            "early",
            "too-long",
        ),
        Layout::default().junk(&whole[..whole.len() - 1]).vector(
            "pkt-content-115",
            "The last byte is missing",
            "FRM-014",
            "limit",
            "truncated",
        ),
        Layout::default().junk(&whole[..40]).vector(
            "pkt-content-116",
            "The end in the middle of the digest",
            "FRM-014",
            "",
            "truncated",
        ),
        of(Content { length: (1 << 30) + 1, ..CONTENT }).vector(
            "pkt-content-121",
            "One byte more than the largest piece",
            piece,
            "limit",
            "bad-piece-length",
        ),
        of(Content { length: u64::MAX, ..CONTENT }).vector(
            "pkt-content-122",
            "The largest u64",
            piece,
            "limit",
            "bad-piece-length",
        ),
        of(Content { length: 1 << 32, ..CONTENT }).vector(
            "pkt-content-123",
            "4 GiB: the lower half of the number is 0",
            piece,
            "",
            "bad-piece-length",
        ),
        begun(88).u32("digest_length", 61).junk(CRC.as_bytes()).junk(&[0; 44]).vector(
            "pkt-content-131",
            "A digest one byte longer than what follows",
            agree,
            "limit",
            "bad-metadata",
        ),
        begun(88).u32("digest_length", u32::MAX).junk(CRC.as_bytes()).junk(&[0; 44]).vector(
            "pkt-content-132",
            "A digest of 4 GiB",
            "CNT-003 FRM-016",
            "limit",
            "bad-metadata",
        ),
        begun(89).u32("digest_length", 61).junk(&[b'd'; 61]).vector(
            "pkt-content-133",
            "Nothing follows the digest",
            agree,
            "",
            "bad-metadata",
        ),
        begun(92).u32("digest_length", 61).junk(&[b'd'; 61]).junk(&[0; 3]).vector(
            "pkt-content-134",
            "Three bytes follow the digest",
            agree,
            "limit",
            "bad-metadata",
        ),
        begun(69).u32("digest_length", 20).junk(&[b'd'; 20]).junk(&[0, 0, 0, 18]).junk(&TAIL).vector(
            "pkt-content-135",
            "A parent id one byte longer than what follows",
            agree,
            "limit",
            "bad-metadata",
        ),
        begun(69).u32("digest_length", 20).junk(&[b'd'; 20]).junk(&[0, 0, 0, 1]).junk(&TAIL).vector(
            "pkt-content-136",
            "Sixteen bytes follow the parent id",
            agree,
            "limit",
            "bad-metadata",
        ),
        begun(69).u32("digest_length", 20).junk(&[b'd'; 20]).junk(&[0, 0, 0, 17]).junk(&TAIL).vector(
            "pkt-content-137",
            "Nothing follows the parent id",
            agree,
            "",
            "bad-metadata",
        ),
    ]
}
