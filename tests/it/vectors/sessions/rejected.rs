//! Answers that a client rejects.

use super::super::model::{Bytes, Vector, text};
use super::*;

pub(super) fn rejections() -> Vec<Vector> {
    let s = Session::new;
    let one = |id: &str, comment: &str, requirements: &str, reason: &str, answer: &[u8]| {
        let state = if reason == "digest-mismatch" { "open" } else { "closed" };
        s(id, comment, &format!("{requirements} TCP-018"), "", "client")
            .client(&request(1, 0, 0))
            .server(answer)
            .asked(None, 0, 0, &rejected(reason))
            .connection(state)
    };
    let cut = |id: &str, comment: &str, requirements: &str, reason: &str, answer: &[u8]| {
        s(id, comment, requirements, "", "client")
            .client(&request(1, 0, 0))
            .step("server", None, &Bytes::hex(answer), &[("end", text("finish"))])
            .asked(None, 0, 0, &rejected(reason))
            .connection("closed")
    };
    let digest = |digest: &'static [u8]| Answer { digest, ..ANSWER }.with(NINE);
    vec![
        one(
            "ses-tcp-301",
            "Content that does not have its digest",
            "DIG-014 DIG-015",
            "digest-mismatch",
            &ANSWER.with(b"12345678x"),
        ),
        one(
            "ses-tcp-302",
            "Another piece's number",
            "CNT-007",
            "wrong-number",
            &Answer { number: 1, ..ANSWER }.with(NINE),
        ),
        one(
            "ses-tcp-303",
            "Content of another kind",
            "CNT-020",
            "wrong-tag",
            &Answer { tag: 0x03, ..ANSWER }.with(NINE),
        ),
        one(
            "ses-tcp-304",
            "A reserved tag in place of an answer",
            "CNT-021 TAG-003",
            "wrong-tag",
            &packet(1, 0x42, b""),
        ),
        one("ses-tcp-305", "A request in place of an answer", "CNT-021", "wrong-tag", &request(1, 0, 0)),
        one("ses-tcp-306", "No digest", "DIG-011", "no-digest", &digest(b"")),
        one(
            "ses-tcp-307",
            "An unknown algorithm",
            "DIG-012",
            "unknown-digest",
            &digest(b"md5:25f9e794323b453885f5181f1b624d0b"),
        ),
        one("ses-tcp-308", "A digest without a colon", "DIG-010", "bad-digest", &digest(b"3421780262")),
        one(
            "ses-tcp-309",
            "A digest without a reading",
            "DIG-010",
            "bad-digest",
            &digest(b"crc32:+3421780262"),
        ),
        one(
            "ses-tcp-310",
            "Metadata length and Length disagree",
            "CNT-003 ERR-014",
            "bad-metadata",
            &Answer { metadata_length: -1, ..ANSWER }.with(NINE),
        ),
        one(
            "ses-tcp-311",
            "A piece above 1 GiB",
            "CNT-010 ERR-014",
            "bad-piece-length",
            &Answer { length: (1 << 30) + 1, ..ANSWER }.packet(),
        ),
        one(
            "ses-tcp-312",
            "A parent id that is too long",
            "CNT-013 ERR-014",
            "field-too-long",
            &Answer { parent_id: &[b'p'; 1025], ..ANSWER }.with(NINE),
        ),
        one(
            "ses-tcp-313",
            "A parent id that is no text",
            "FRM-005 ERR-014",
            "not-utf8",
            &Answer { parent_id: b"\xFF", ..ANSWER }.with(NINE),
        ),
        one(
            "ses-tcp-314",
            "Length counts a content of 4 MiB",
            "FRM-004 FRM-011",
            "too-long",
            &[1, 1, 0, 0x40, 0, 0x41],
        ),
        one("ses-tcp-315", "Metadata of 48 bytes", "FRM-012", "bad-length", &packet(1, 0x01, &[0; 48])),
        s("ses-tcp-321", "Another length than the task says", "CNT-011 TCP-018", "", "client")
            .client(&request(1, 0, 0))
            .server(&nine())
            .asked(None, 0, 0, &[vec![("piece_length", text("10"))], rejected("wrong-length")].concat())
            .connection("closed"),
        cut("ses-tcp-331", "The end within the content", "CNT-019", "incomplete", &ANSWER.with(&NINE[..8])),
        cut("ses-tcp-332", "The end within the metadata", "FRM-014", "truncated", &nine()[..50]),
        cut("ses-tcp-333", "The end within the header", "FRM-014", "truncated", &nine()[..5]),
        s("ses-tcp-341", "After a digest mismatch the connection goes on", "DIG-015 TCP-018", "", "client")
            .client(&[request(1, 0, 0), request(2, 0, 0)].concat())
            .server(&[ANSWER.with(b"---------"), Answer { id: 2, ..ANSWER }.with(NINE)].concat())
            .asked(None, 0, 0, &rejected("digest-mismatch"))
            .asked(None, 0, 0, &piece(NINE_SHA256))
            .connection("open"),
    ]
}
