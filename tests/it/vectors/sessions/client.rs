//! What a client makes of answers.

use super::super::model::{Bytes, Vector, text};
use super::*;

pub(super) fn tcp_client() -> Vec<Vector> {
    let s = Session::new;
    // One request, one answer that is taken.
    let taken = |id: &str, comment: &str, requirements: &str, flags: &str, answer: &[u8]| {
        s(id, comment, requirements, flags, "client")
            .client(&request(1, 0, 0))
            .server(answer)
            .asked(None, 0, 0, &piece(NINE_SHA256))
            .connection("open")
    };
    let lenient = |id: &str, comment: &str, requirements: &str, digest: &[u8]| {
        s(id, comment, requirements, "", "client")
            .client(&request(1, 0, 0))
            .server(&Answer { digest, ..ANSWER }.with(NINE))
            .asked(
                None,
                0,
                0,
                &[
                    ("lenient", "true".to_owned()),
                    ("outcome", text("unverified")),
                    ("sha256", text(NINE_SHA256)),
                ],
            )
            .connection("open")
    };
    let failing = |id: &str, comment: &str, requirements: &str, code: u8, message: &str| {
        s(id, comment, requirements, "", "client")
            .client(&[request(1, 0, 7), request(2, 0, 0)].concat())
            .server(&[error(1, code, message), Answer { id: 2, ..ANSWER }.with(NINE)].concat())
            .asked(None, 0, 7, &failed(code, message))
            .asked(None, 0, 0, &piece(NINE_SHA256))
            .connection("open")
    };
    vec![
        taken("ses-tcp-201", "Another packet id", "FRM-007", "", &Answer { id: 200, ..ANSWER }.with(NINE)),
        taken(
            "ses-tcp-202",
            "An offset that cannot be true",
            "CNT-009",
            "deployed-differs",
            &Answer { offset: u64::MAX, ..ANSWER }.with(NINE),
        ),
        taken(
            "ses-tcp-203",
            "Odd traffic type, cost and date",
            "CNT-016",
            "deployed-differs",
            &Answer { last: (9, u64::MAX, i64::MIN), ..ANSWER }.with(NINE),
        ),
        taken(
            "ses-tcp-204",
            "Appended bytes",
            "CNT-004 CNT-018",
            "",
            &Answer { appended: &[0xFF; 5], ..ANSWER }.with(NINE),
        ),
        taken(
            "ses-tcp-205",
            "A CRC in hexadecimal",
            "DIG-007 DIG-008",
            "deployed-differs",
            &Answer { digest: b"crc32:CBF43926", ..ANSWER }.with(NINE),
        ),
        lenient("ses-tcp-211", "No digest, and a lenient Client", "DIG-011 DIG-013", b""),
        lenient(
            "ses-tcp-212",
            "An unknown algorithm, and a lenient Client",
            "DIG-012 DIG-013",
            b"md5:25f9e794323b453885f5181f1b624d0b",
        ),
        failing("ses-tcp-221", "An error without a message", "ERR-002 ERR-006", 3, ""),
        failing("ses-tcp-222", "A code that is not known", "ERR-005 ERR-006", 77, "from the future"),
        failing("ses-tcp-223", "Code 0", "ERR-005 ERR-006", 0, "?"),
        s(
            "ses-tcp-231",
            "The connection ends in place of an answer",
            "TCP-016",
            "deployed-differs",
            "client",
        )
        .client(&request(1, 0, 0))
        .end("server")
        .asked(None, 0, 0, &outcome("no-answer"))
        .connection("closed"),
        s("ses-tcp-232", "Close in place of two answers", "CLS-007 CLS-008", "", "client")
            .client(&[request(1, 0, 0), request(2, 0, 1)].concat())
            .step("server", None, &Bytes::hex(&close(0)), &[("end", text("finish"))])
            .asked(None, 0, 0, &outcome("going-away"))
            .asked(None, 0, 1, &outcome("going-away"))
            .connection("closed"),
        s("ses-tcp-233", "Close after the answer", "CLS-009 CLS-010", "", "client")
            .client(&request(1, 0, 0))
            .step("server", None, &Bytes::hex(&[nine(), close(0)].concat()), &[("end", text("finish"))])
            .asked(None, 0, 0, &piece(NINE_SHA256))
            .connection("closed"),
        s("ses-tcp-234", "A byte that nobody asked for", "TCP-020 CNT-018", "", "client")
            .client(&request(1, 0, 0))
            .server(&[nine(), vec![0]].concat())
            .asked(None, 0, 0, &piece(NINE_SHA256))
            .connection("closed"),
    ]
}

pub(super) fn quic_client() -> Vec<Vector> {
    let s = Session::new;
    let one = |id: &str, comment: &str, requirements: &str, answer: &[u8], members: &Members| {
        s(id, comment, requirements, "", "client")
            .finish("client", 0, &request(1, 0, 0))
            .finish("server", 0, answer)
            .asked(Some(0), 0, 0, members)
            .connection("open")
    };
    vec![
        one("ses-quic-201", "An empty stream", "QUC-030", &[], &outcome("no-answer")),
        one(
            "ses-quic-202",
            "An error, and the connection stays",
            "ERR-006 QUC-034",
            &error(1, 3, "disk failed"),
            &failed(3, "disk failed"),
        ),
        one("ses-quic-203", "Close in place of an answer", "CLS-007", &close(1), &outcome("going-away")),
        one(
            "ses-quic-204",
            "Bytes after an Error packet",
            "ERR-006",
            &[error(1, 2, "no"), vec![1, 2, 3]].concat(),
            &failed(2, "no"),
        ),
        one(
            "ses-quic-211",
            "The end within the content",
            "CNT-019 QUC-028",
            &ANSWER.with(&NINE[..4]),
            &rejected("incomplete"),
        ),
        one("ses-quic-212", "The end within the metadata", "FRM-014", &nine()[..40], &rejected("truncated")),
        one(
            "ses-quic-213",
            "A byte after the content",
            "QUC-029",
            &ANSWER.with(b"123456789x"),
            &rejected("extra-bytes"),
        ),
        one(
            "ses-quic-214",
            "Content that does not have its digest",
            "DIG-015",
            &ANSWER.with(b"987654321"),
            &rejected("digest-mismatch"),
        ),
        s(
            "ses-quic-221",
            "A reset within the content; the other stream is not touched",
            "QUC-031 QUC-034 QUC-035",
            "",
            "client",
        )
        .finish("client", 0, &request(1, 0, 0))
        .finish("client", 4, &request(2, 0, 0))
        .on("server", 0, &ANSWER.with(&NINE[..4]))
        .ends("server", Some(0), "reset", 1)
        .finish("server", 4, &Answer { id: 2, ..ANSWER }.with(NINE))
        .asked(Some(0), 0, 0, &rejected("reset"))
        .asked(Some(4), 0, 0, &piece(NINE_SHA256))
        .connection("open"),
        s("ses-quic-222", "STOP_SENDING beside a valid answer", "QUC-017", "", "client")
            .finish("client", 0, &request(1, 0, 0))
            .ends("server", Some(0), "stop", 0)
            .finish("server", 0, &nine())
            .asked(Some(0), 0, 0, &piece(NINE_SHA256))
            .connection("open"),
        s(
            "ses-quic-223",
            "Content of another kind, on a stream that has not ended",
            "CNT-020 QUC-032 QUC-034",
            "",
            "client",
        )
        .finish("client", 0, &request(1, 0, 0))
        .on("server", 0, &Answer { tag: 0x07, ..ANSWER }.packet())
        .ends("client", Some(0), "stop", 2)
        .asked(Some(0), 0, 0, &rejected("wrong-tag"))
        .connection("open"),
        s("ses-quic-224", "The connection ends within the content", "CNT-019", "", "client")
            .finish("client", 0, &request(1, 0, 0))
            .on("server", 0, &ANSWER.with(&NINE[..4]))
            .ends("server", None, "close", 1)
            .asked(Some(0), 0, 0, &outcome("lost"))
            .connection("closed"),
    ]
}
