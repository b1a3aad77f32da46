//! What a client says: its handshake and its requests.

use super::seen::Seen;
use super::{Outcome, cases, right};
use crate::conformance::case::{Shown, ensure, fail, skip};
use crate::conformance::observe::Parameters;

cases! {
    "VTX-FRM-001" Both Nothing 3/1 "whole packets only" => right, |seen| well(seen, "VTX-FRM-001");
    "VTX-FRM-002" Both Nothing 1/1 "id, tag and Length in the header, in this order" => right, |seen| {
        let header = seen.first()?.bytes.get(1..6);
        ensure(header == Some(&[0x00, 0, 0, 0, 68]), || format!("the header {header:?}"))
    };
    "VTX-FRM-003" Both Nothing 3/1 "Length and piece number in big-endian" => right, |seen| well(seen, "VTX-FRM-003");
    "VTX-FRM-004" Both Nothing 1/1 "a Length that does not count the header" => right, |seen| well(seen, "VTX-FRM-004");
    "VTX-TAG-001" Both Nothing 1/1 "the tag of the task's kind" => right, |seen| well(seen, "VTX-TAG-001");
    "VTX-TAG-003" Both Nothing 1/1 "no packet with a tag from 0x08 to 0xEF" => right, |seen| well(seen, "VTX-TAG-003");
    "VTX-REQ-001" Both Nothing 1/1 "requests of 74 bytes: task id, then piece number" => right, |seen| {
        well(seen, "VTX-REQ-001")?;
        let length = seen.first()?.bytes.len();
        ensure(length == 74, || format!("{length} bytes"))
    };
    "VTX-REQ-002" Both Nothing 1/1 "the task id in lower-case letters" => right, |seen| well(seen, "VTX-REQ-002");
    "VTX-REQ-005" Both Nothing 3/1 "requests for pieces of the task only" => right, |seen| {
        for number in 0..3 {
            if !seen.downloads().any(|request| request.number == Some(number)) {
                return fail(format!("no request for piece {number}"));
            }
        }
        // A client that was not told asks for the piece behind the last one, to learn that there is none.
        match seen.downloads().find(|request| request.number > Some(3)) {
            Some(request) => fail(format!("a request for piece {:?} of 3", request.number)),
            None => Ok(()),
        }
    };
    "VTX-QUC-001" Quic Nothing 1/1 "a handshake in QUIC version 1 with TLS 1.3" => right, |seen| seen.hellos().map(drop);
    "VTX-QUC-002" Quic Nothing 1/1 "no application protocols offered" => right, |seen| {
        ensure(seen.alpn.is_empty(), || format!("{:?}", seen.alpn))?;
        seen.hellos().map(drop)
    };
    "VTX-QUC-004" Quic Nothing 1/1 "the server name d7y" => right, |seen| {
        for hello in seen.hellos()? {
            ensure(hello.server_name.as_deref() == Some("d7y"), || format!("the name {:?}", hello.server_name))?;
        }
        Ok(())
    };
    "VTX-QUC-007" Quic Nothing 1/1 "a max_idle_timeout of 30000 ms" => right, |seen| {
        parameter(seen, Parameters::MAX_IDLE_TIMEOUT, |ms| ms == 30_000)
    };
    "VTX-QUC-009/stream" Quic Nothing 1/1 "credit of at least 16 MiB for a stream" => right, |seen| {
        parameter(seen, Parameters::INITIAL_MAX_STREAM_DATA_BIDI_LOCAL, |bytes| bytes >= 16 << 20)
    };
    "VTX-QUC-009/connection" Quic Nothing 1/1 "credit of at least 16 MiB for the connection" => right, |seen| {
        parameter(seen, Parameters::INITIAL_MAX_DATA, |bytes| bytes >= 16 << 20)
    };
    "VTX-QUC-012" Quic Nothing 3/1 "one request on a stream" => right, |seen| well(seen, "VTX-QUC-012");
    "VTX-QUC-013" Quic Nothing 3/1 "FIN directly after the request" => right, |seen| {
        seen.first()?;
        ensure(seen.downloads().all(|request| request.finished), || "no FIN".to_owned())
    };
    "VTX-QUC-018" Quic Nothing 1/1 "no unidirectional stream" => right, |seen| {
        let opened = seen.connections.iter().any(|connection| connection.unidirectional);
        ensure(!opened, || "a unidirectional stream of the client".to_owned())
    };
    "VTX-QUC-019/unidirectional" Quic Nothing 1/1 "no unidirectional streams granted" => right, |seen| {
        parameter(seen, Parameters::INITIAL_MAX_STREAMS_UNI, |count| count == 0)
    };
    "VTX-QUC-019/bidirectional" Quic Nothing 1/1 "no bidirectional streams granted" => right, |seen| {
        parameter(seen, Parameters::INITIAL_MAX_STREAMS_BIDI, |count| count == 0)
    };
    "VTX-EXT-004" Tcp Nothing 2/1 "an extension probed on a connection without an outstanding request" => right, |seen| {
        let probe = extension(seen)?;
        let on = &seen.requests.get(..probe).unwrap_or_default();
        let connection = seen.requests.get(probe).map(|request| request.connection);
        let shared = on.iter().any(|request| Some(request.connection) == connection);
        // What was answered before is not outstanding; all that was asked before on it has been, by the order of TCP.
        ensure(!shared || matches!(seen.outcome, Outcome::Done(_)), || "requests before it".to_owned())
    };
    "VTX-EXT-005" Both Nothing 2/1 "the task, from a server without extensions" => right, |seen| {
        extension(seen)?;
        seen.taken()
    };
}

fn well(seen: &Seen, requirement: &str) -> Shown {
    seen.not_noted(requirement)?;
    seen.first().map(drop)
}

fn parameter(seen: &Seen, id: u64, holds: fn(u64) -> bool) -> Shown {
    for hello in seen.hellos()? {
        let number = hello.parameters.number(id);
        ensure(holds(number), || format!("the transport parameter 0x{id:02x} is {number}"))?;
    }
    Ok(())
}

/// Which request is the first one of an extension.
fn extension(seen: &Seen) -> Shown<usize> {
    let is_extension = |bytes: &[u8]| matches!(bytes.get(1), Some(0xF0..=0xFD));
    match seen.requests.iter().position(|request| is_extension(&request.bytes)) {
        Some(place) => Ok(place),
        None => skip("the client asks for no extension"),
    }
}
