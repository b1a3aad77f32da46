//! What goes well.

use super::super::model::{Bytes, Vector, text};
use super::*;

pub(super) fn tcp() -> Vec<Vector> {
    let s = Session::new;
    let whole = nine();
    let second = Answer { id: 2, number: 1, offset: 9, length: 3, digest: b"crc32:891568578", ..ANSWER };
    let kinds = (0..4u8).fold(
        s(
            "ses-tcp-002",
            "The four kinds, one after another",
            "TAG-001 TAG-004 FRM-006 REQ-011 TCP-001 TCP-004",
            "deployed-differs",
            "both",
        )
        .holds(&[0, 1, 2, 3]),
        |session, kind| {
            session
                .client(&request(kind, kind, 0))
                .server(&Answer { id: kind, tag: 2 * kind + 1, ..ANSWER }.with(NINE))
        },
    );
    let kinds = (0..4).fold(kinds, |session, kind| session.asked(None, kind, 0, &piece(NINE_SHA256)));
    vec![
        s(
            "ses-tcp-001",
            "One piece",
            "REQ-001 REQ-010 REQ-011 CNT-006 CNT-008 CNT-017 CNT-018 DIG-002 DIG-014 TCP-004",
            "",
            "both",
        )
        .holds(&[0])
        .client(&request(1, 0, 0))
        .server(&whole)
        .asked(None, 0, 0, &piece(NINE_SHA256))
        .connection("open"),
        kinds.connection("open"),
        s(
            "ses-tcp-003",
            "An empty piece: the answer ends with the packet",
            "CNT-017 REQ-006 DIG-002",
            "limit",
            "both",
        )
        .holds_other(0, 0, "crc32:0", &Bytes::default())
        .client(&request(1, 0, 0))
        .server(&Answer { length: 0, digest: b"crc32:0", ..ANSWER }.packet())
        .asked(None, 0, 0, &piece(EMPTY_SHA256))
        .connection("open"),
        s(
            "ses-tcp-004",
            "Two requests in one write, answered in their order",
            "TCP-001 TCP-002 REQ-010 CNT-018",
            "",
            "client",
        )
        .client(&[request(1, 0, 0), request(2, 0, 1)].concat())
        .server(&[whole.clone(), second.with(b"abc")].concat())
        .asked(None, 0, 0, &piece(NINE_SHA256))
        .asked(None, 0, 1, &piece(ABC_SHA256))
        .connection("open"),
        s("ses-tcp-005", "Split within header, value and content", "FRM-009 CNT-018", "", "both")
            .holds(&[0])
            .split("client", &request(1, 0, 0), &[1, 4, 2, 60, 7])
            .split("server", &whole, &[3, 3, 2, 40, whole.len() - 50, 2])
            .asked(None, 0, 0, &piece(NINE_SHA256))
            .connection("open"),
        s("ses-tcp-006", "Byte by byte at the begin", "FRM-009 FRM-013", "", "client")
            .split("client", &request(1, 0, 0), &[1, 1, 1, 1, 1, 1, 68])
            .split("server", &whole, &[1, 1, 1, 1, 1, 1, 1, 1, 1, 1, whole.len() - 10])
            .asked(None, 0, 0, &piece(NINE_SHA256))
            .connection("open"),
        s("ses-tcp-007", "4 MiB", "CNT-017 CNT-018 DIG-014", "big", "client")
            .client(&request(1, 0, 0))
            .step(
                "server",
                None,
                &Bytes::hex(&Answer { length: 4 << 20, digest: b"crc32:1944841408", ..ANSWER }.packet())
                    .then(Bytes::steps(4 << 20, 1, 3)),
                &[],
            )
            .asked(None, 0, 0, &piece(FOUR_MIB_SHA256))
            .connection("open"),
    ]
}

pub(super) fn quic() -> Vec<Vector> {
    let s = Session::new;
    let second = Answer { id: 2, number: 1, offset: 9, length: 3, digest: b"crc32:891568578", ..ANSWER };
    let answer = nine();
    vec![
        s("ses-quic-001", "One piece on one stream", "QUC-012 QUC-013 QUC-015 QUC-028 REQ-011", "", "both")
            .holds(&[0])
            .finish("client", 0, &request(1, 0, 0))
            .finish("server", 0, &answer)
            .asked(Some(0), 0, 0, &piece(NINE_SHA256))
            .connection("open"),
        s("ses-quic-002", "Two streams, answered crosswise", "QUC-012 FRM-009 CNT-018", "", "client")
            .finish("client", 0, &request(1, 0, 0))
            .finish("client", 4, &request(2, 0, 1))
            .on("server", 0, &answer[..60])
            .finish("server", 4, &second.with(b"abc"))
            .finish("server", 0, &answer[60..])
            .asked(Some(0), 0, 0, &piece(NINE_SHA256))
            .asked(Some(4), 0, 1, &piece(ABC_SHA256))
            .connection("open"),
        s("ses-quic-003", "The kinds are kept apart", "REQ-014 TAG-004 QUC-012", "deployed-differs", "both")
            .holds(&[2])
            .finish("client", 0, &request(1, 2, 0))
            .finish("server", 0, &Answer { tag: 0x05, ..ANSWER }.with(NINE))
            .finish("client", 4, &request(2, 0, 0))
            .finish("server", 4, &error(2, 2, "not found"))
            .asked(Some(0), 2, 0, &piece(NINE_SHA256))
            .asked(Some(4), 0, 0, &failed(2, "not found"))
            .connection("open"),
        s("ses-quic-004", "4 MiB", "CNT-017 QUC-028", "big", "client")
            .finish("client", 0, &request(1, 0, 0))
            .step(
                "server",
                Some(0),
                &Bytes::hex(&Answer { length: 4 << 20, digest: b"crc32:1944841408", ..ANSWER }.packet())
                    .then(Bytes::steps(4 << 20, 1, 3)),
                &[("end", text("finish"))],
            )
            .asked(Some(0), 0, 0, &piece(FOUR_MIB_SHA256))
            .connection("open"),
    ]
}
