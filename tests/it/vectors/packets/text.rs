//! Texts that are too long or no text.

use super::super::model::{Layout, Vector};
use super::{TAIL, begun};

pub(super) fn texts() -> Vec<Vector> {
    let long = "CNT-013 ERR-014";
    let utf8 = "FRM-005 ERR-014";
    let digest = |bytes: &[u8]| {
        let length = u32::try_from(49 + bytes.len()).unwrap();
        let count = u32::try_from(bytes.len()).unwrap();
        begun(length).u32("digest_length", count).junk(bytes).junk(&[0; 4]).junk(&TAIL)
    };
    let parent = |bytes: &[u8]| {
        let length = u32::try_from(49 + bytes.len()).unwrap();
        let count = u32::try_from(bytes.len()).unwrap();
        begun(length).u32("digest_length", 0).u32("parent_id_length", count).junk(bytes).junk(&TAIL)
    };
    let message = |bytes: &[u8]| {
        let length = u32::try_from(1 + bytes.len()).unwrap();
        Layout::header(5, 0xFF, length).u8("code", 1).junk(bytes)
    };
    vec![
        digest(&[b'd'; 257]).vector("pkt-text-101", "A digest of 257 bytes", long, "limit", "field-too-long"),
        parent(&[b'p'; 1025]).vector(
            "pkt-text-102",
            "A parent id of 1025 bytes",
            "CNT-012 CNT-013 ERR-014",
            "limit",
            "field-too-long",
        ),
        digest(b"crc32:\xFF").vector(
            "pkt-text-111",
            "A digest with a byte that UTF-8 never has",
            utf8,
            "",
            "not-utf8",
        ),
        parent(b"\xC0\x80").vector(
            "pkt-text-112",
            "A zero byte in two: an overlong form",
            utf8,
            "",
            "not-utf8",
        ),
        parent(b"\xED\xA0\x80").vector("pkt-text-113", "A surrogate", utf8, "", "not-utf8"),
        parent(b"\xF4\x90\x80\x80").vector(
            "pkt-text-114",
            "Beyond the last code point",
            utf8,
            "",
            "not-utf8",
        ),
        parent(b"a\xE2\x98").vector("pkt-text-115", "A character that is cut short", utf8, "", "not-utf8"),
        parent(b"a\x98b").vector("pkt-text-116", "A continuation without a begin", utf8, "", "not-utf8"),
        message(b"caf\xE9").vector("pkt-text-117", "A message in Latin-1", utf8, "", "not-utf8"),
        message(b"no such \xF0\x9F\x8D").vector(
            "pkt-text-118",
            "A message cut within a character",
            "FRM-005 ERR-003",
            "",
            "not-utf8",
        ),
        message(b"\xFF\xFEn\0o\0").vector("pkt-text-119", "A message in UTF-16", utf8, "", "not-utf8"),
    ]
}
