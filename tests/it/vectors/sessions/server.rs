//! What a server does with what is no request, or is not there.

use super::super::model::{Bytes, Vector, text};
use super::*;

/// What a server does with what is no request, or with a request for what is not there.
pub(super) fn tcp_server() -> Vec<Vector> {
    let s = Session::new;
    let bad = "no request";
    // One packet that is refused, and a request after it that is answered.
    let refused = |id: &str, comment: &str, requirements: &str, flags: &str, packet: &[u8]| {
        s(id, comment, &format!("{requirements} ERR-004 TCP-006"), flags, "server")
            .holds(&[0])
            .client(packet)
            .server(&error(packet[0], 1, bad))
            .client(&request(1, 0, 0))
            .server(&nine())
            .outcome(None, &failed(1, bad))
            .asked(None, 0, 0, &piece(NINE_SHA256))
            .connection("open")
    };
    let missing =
        |id: &str, comment: &str, requirements: &str, flags: &str, kind: u8, number: u32, held: usize| {
            s(id, comment, &format!("{requirements} FRM-006 ERR-001 ERR-004 ERR-006 TCP-004"), flags, "both")
                .holds(&[held])
                .client(&request(3, kind, number))
                .server(&error(3, 2, "not found"))
                .client(&request(1, held as u8, 0))
                .server(&Answer { tag: 2 * held as u8 + 1, ..ANSWER }.with(NINE))
                .asked(None, kind.into(), number, &failed(2, "not found"))
                .asked(None, held, 0, &piece(NINE_SHA256))
                .connection("open")
        };
    let other_task = packet(4, 0x00, &[&[b'0'; 64][..], &[0; 4]].concat());
    let bad_task = packet(4, 0x00, &[TASK.to_uppercase().as_bytes(), &[0; 4]].concat());
    vec![
        missing("ses-tcp-101", "A piece that the task does not have", "REQ-013", "", 0, 1, 0),
        missing("ses-tcp-102", "The largest piece number", "REQ-004 REQ-013", "limit", 0, u32::MAX, 0),
        missing(
            "ses-tcp-103",
            "The task is there under another kind",
            "REQ-014",
            "deployed-differs",
            0,
            0,
            1,
        ),
        s("ses-tcp-104", "A task that is not there", "REQ-012 ERR-006 TCP-004", "", "both")
            .holds(&[0])
            .client(&other_task)
            .server(&error(4, 2, "no such task"))
            .outcome(
                None,
                &[
                    vec![
                        ("kind", text("piece")),
                        ("task_id", text(&"0".repeat(64))),
                        ("number", "0".to_owned()),
                    ],
                    failed(2, "no such task"),
                ]
                .concat(),
            )
            .connection("open"),
        refused("ses-tcp-111", "A task id in upper case", "REQ-003 ERR-007", "deployed-differs", &bad_task),
        refused(
            "ses-tcp-112",
            "A request that is one byte too long: its value is skipped",
            "ERR-007 FRM-012",
            "deployed-differs",
            &packet(4, 0x00, &[b'a'; 69]),
        ),
        refused(
            "ses-tcp-113",
            "A reserved tag",
            "TAG-002 ERR-008",
            "deployed-differs",
            &packet(4, 0x42, b"whatever"),
        ),
        refused(
            "ses-tcp-114",
            "A Content packet: no content is taken after it",
            "ERR-008",
            "deployed-differs",
            &Answer { id: 4, ..ANSWER }.packet(),
        ),
        refused("ses-tcp-115", "An Error packet", "ERR-008", "deployed-differs", &error(4, 3, "I failed")),
        refused(
            "ses-tcp-116",
            "An Error packet that is no text",
            "ERR-007",
            "deployed-differs",
            &packet(4, 0xFF, &[1, 0xFF]),
        ),
        s(
            "ses-tcp-121",
            "A Length above the limit",
            "FRM-011 FRM-013 FRM-016 ERR-007 TCP-007 TCP-013",
            "early deployed-differs",
            "server",
        )
        .holds(&[0])
        .client(&[4, 0x00, 0xFF, 0xFF, 0xFF, 0xFF])
        .step("server", None, &Bytes::hex(&error(4, 1, bad)), &[("end", text("finish"))])
        .outcome(None, &failed(1, bad))
        .connection("closed"),
        s("ses-tcp-122", "The end in the middle of a request", "FRM-014 ERR-007 TCP-009", "", "server")
            .holds(&[0])
            .client(&[request(1, 0, 0), request(2, 0, 0)[..40].to_vec()].concat())
            .end("client")
            .step(
                "server",
                None,
                &Bytes::hex(&[nine(), error(2, 1, bad)].concat()),
                &[("end", text("finish"))],
            )
            .asked(None, 0, 0, &piece(NINE_SHA256))
            .outcome(None, &failed(1, bad))
            .connection("closed"),
        s("ses-tcp-123", "The end between two requests", "TCP-011 REQ-010", "", "server")
            .holds(&[0])
            .client(&request(1, 0, 0))
            .end("client")
            .step("server", None, &Bytes::hex(&nine()), &[("end", text("finish"))])
            .asked(None, 0, 0, &piece(NINE_SHA256))
            .connection("closed"),
        s("ses-tcp-131", "Close after a request", "CLS-001 CLS-003 CLS-004", "deployed-differs", "server")
            .holds(&[0])
            .client(&[request(1, 0, 0), close(2)].concat())
            .step("server", None, &Bytes::hex(&nine()), &[("end", text("finish"))])
            .asked(None, 0, 0, &piece(NINE_SHA256))
            .connection("closed"),
        s("ses-tcp-132", "A request after Close", "CLS-003 CLS-005 CLS-008", "deployed-differs", "server")
            .holds(&[0])
            .client(&[close(2), request(1, 0, 0)].concat())
            .end("server")
            .asked(None, 0, 0, &outcome("no-answer"))
            .connection("closed"),
        s("ses-tcp-133", "Close with a value", "CLS-002 CLS-003", "deployed-differs", "server")
            .holds(&[0])
            .client(&packet(2, 0xFE, b"bye"))
            .end("server")
            .connection("closed"),
    ]
}

pub(super) fn quic_server() -> Vec<Vector> {
    let s = Session::new;
    let bad = "no request";
    let refused =
        |id: &str, comment: &str, requirements: &str, flags: &str, bytes: &[u8], id_of_answer: u8| {
            s(id, comment, requirements, flags, "server")
                .holds(&[0])
                .finish("client", 0, bytes)
                .finish("server", 0, &error(id_of_answer, 1, bad))
                .finish("client", 4, &request(1, 0, 0))
                .finish("server", 4, &nine())
                .outcome(Some(0), &failed(1, bad))
                .asked(Some(4), 0, 0, &piece(NINE_SHA256))
                .connection("open")
        };
    vec![
        s(
            "ses-quic-101",
            "The answer does not wait for the end of the request's stream",
            "QUC-014 QUC-015",
            "",
            "server",
        )
        .holds(&[0])
        .on("client", 0, &request(1, 0, 0))
        .finish("server", 0, &nine())
        .finish("client", 0, &[])
        .asked(Some(0), 0, 0, &piece(NINE_SHA256))
        .connection("open"),
        s("ses-quic-102", "A second request on a stream is ignored", "QUC-016 REQ-010", "", "server")
            .holds(&[0])
            .finish("client", 0, &[request(1, 0, 0), request(2, 0, 0)].concat())
            .finish("server", 0, &nine())
            .asked(Some(0), 0, 0, &piece(NINE_SHA256))
            .connection("open"),
        refused("ses-quic-111", "An empty stream", "QUC-022 FRM-014 ERR-007", "deployed-differs", &[], 0),
        refused(
            "ses-quic-112",
            "Half a request",
            "QUC-022 FRM-014 ERR-007",
            "deployed-differs",
            &request(9, 0, 0)[..30],
            9,
        ),
        refused(
            "ses-quic-113",
            "A reserved tag",
            "ERR-008 TAG-002",
            "deployed-differs",
            &packet(9, 0xFD, b"?"),
            9,
        ),
        refused(
            "ses-quic-114",
            "A Content packet",
            "ERR-008",
            "deployed-differs",
            &Answer { id: 9, ..ANSWER }.packet(),
            9,
        ),
        s(
            "ses-quic-121",
            "A Length above the limit: answered at once",
            "FRM-011 FRM-013 ERR-007 QUC-021",
            "early deployed-differs",
            "server",
        )
        .holds(&[0])
        .on("client", 0, &[9, 0x00, 0, 0, 0x40, 0x01])
        .finish("server", 0, &error(9, 1, bad))
        .ends("server", Some(0), "stop", 2)
        .outcome(Some(0), &failed(1, bad))
        .connection("open"),
        s("ses-quic-122", "A request that is reset", "QUC-024", "", "server")
            .holds(&[0])
            .on("client", 0, &request(1, 0, 0)[..20])
            .ends("client", Some(0), "reset", 7)
            .ends("server", Some(0), "reset", 7)
            .outcome(Some(0), &rejected("reset"))
            .connection("open"),
        s(
            "ses-quic-131",
            "Close: what was asked before is answered, then the connection ends",
            "CLS-003 CLS-004 QUC-046",
            "deployed-differs",
            "server",
        )
        .holds(&[0])
        .finish("client", 0, &request(1, 0, 0))
        .finish("client", 4, &close(2))
        .finish("server", 0, &nine())
        .finish("server", 4, &[])
        .ends("server", None, "close", 0)
        .asked(Some(0), 0, 0, &piece(NINE_SHA256))
        .connection("closed"),
        s("ses-quic-132", "Half a request when Close arrives", "CLS-006", "deployed-differs", "server")
            .holds(&[0])
            .on("client", 0, &request(1, 0, 0)[..20])
            .finish("client", 4, &close(2))
            .finish("server", 4, &[])
            .ends("server", Some(0), "reset", 5)
            .ends("server", Some(0), "stop", 5)
            .ends("server", None, "close", 0)
            .outcome(Some(0), &rejected("reset"))
            .connection("closed"),
    ]
}
