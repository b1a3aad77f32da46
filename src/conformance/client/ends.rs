//! Streams and connections that end as they should not, or do not end.

use super::rejects::corrupt;
use super::{Asked, Reply, Step, cases, right, say};
use crate::conformance::Draft;
use crate::conformance::case::{ensure, fail, or_blame, skip};
use crate::conformance::draft::{close, error, packet};

cases! {
    "VTX-QUC-028/reset" Quic Nothing 1/1 "no piece before the end of the stream: here comes a reset" => |asked| {
        vec![Step::Send(asked.right.encode()), Step::Pause(asked.waits.quiet), Step::Reset(1)]
    }, |seen| seen.refused();
    "VTX-QUC-029" Quic Nothing 1/1 "an answer with bytes after its content rejected" => |asked| {
        say(Draft { trailing: b"!".to_vec(), ..asked.right }.encode())
    }, |seen| seen.refused();
    "VTX-QUC-030" Quic Nothing 1/1 "an empty stream taken for no answer" => |_| vec![Step::Fin], |seen| seen.refused();
    "VTX-QUC-031/begin" Quic Nothing 1/1 "a stream that is reset at once rejected" => |_| vec![Step::Reset(3)], |seen| seen.refused();
    "VTX-QUC-031/middle" Quic Nothing 1/1 "an answer that is reset within its content rejected" => |asked| reset_with(&asked, 1), |seen| seen.refused();
    "VTX-QUC-035/reset-0" Quic Nothing 1/1 "a reset with code 0 taken for a reset" => |asked| reset_with(&asked, 0), |seen| seen.refused();
    "VTX-QUC-035/reset-unknown" Quic Nothing 1/1 "a reset with an unknown code taken for a reset" => |asked| reset_with(&asked, 123_456), |seen| seen.refused();
    "VTX-QUC-035/close-0" Quic Nothing 1/1 "a connection closed with code 0 within an answer taken for its loss" => |asked| {
        let bytes = asked.right.encode();
        vec![Step::Send(bytes.get(..500).unwrap_or_default().to_vec()), Step::Pause(asked.waits.quiet / 4), Step::CloseConnection(0)]
    }, |seen| seen.refused();
    "VTX-QUC-032/number" Quic Nothing 3/1 "STOP_SENDING 2 for another piece's number" => |asked| {
        held(Draft { number: asked.right.number + 1, ..asked.right })
    }, |seen| seen.stopped_with(2);
    "VTX-QUC-032/kind" Quic Nothing 3/1 "STOP_SENDING 2 for another kind" => |asked| held(Draft { tag: 0x05, ..asked.right }), |seen| seen.stopped_with(2);
    "VTX-QUC-032/too-long" Quic Nothing 3/1 "STOP_SENDING 2 for a Length above 16384" => |asked| {
        vec![Step::Send(packet(asked.right.id, 0x01, 20_000, b"")), Step::Hold]
    }, |seen| seen.stopped_with(2);
    "VTX-QUC-032/digest" Quic Nothing 3/1 "STOP_SENDING 2 for a malformed digest" => |asked| held(Draft { digest: b"crc32:x".to_vec(), ..asked.right }), |seen| seen.stopped_with(2);
    "VTX-QUC-032/trailing" Quic Nothing 3/1 "STOP_SENDING 2 for bytes after the content" => |asked| {
        held(Draft { trailing: b"more".to_vec(), ..asked.right })
    }, |seen| seen.stopped_with(2);
    "VTX-QUC-033" Quic FirstByte 2/1 "STOP_SENDING 4 when the first-byte deadline has passed" => |asked| {
        if asked.number == 0 { vec![Step::Hold] } else { right(asked) }
    }, |seen| {
        or_blame(seen.given_up(), "VTX-LIM-003")?;
        seen.stopped_with(4)
    };
    "VTX-LIM-003/first-byte" Both FirstByte 1/1 "a request given up when the first-byte deadline has passed" => |_| vec![Step::Hold], |seen| seen.given_up();
    "VTX-LIM-003/header" Both FirstByte 1/1 "a request given up whose answer does not get beyond its first bytes" => |_| {
        vec![Step::Send(vec![0, 1, 0]), Step::Hold]
    }, |seen| seen.given_up();
    "VTX-LIM-004" Quic Connect 1/1 "a connection attempt given up when the connect deadline has passed" => right, |seen| seen.attempt_given_up();
    "VTX-ERR-006" Both Nothing 6/1 "a connection that is used on after an Error packet" => |asked| {
        if asked.number == 1 { say(error(asked.right.id, 3, b"not now")) } else { right(asked) }
    }, |seen| {
        seen.first()?;
        let place = seen.requests.iter().position(|request| request.number == Some(1));
        let Some(place) = place else { return skip("the client did not ask for piece 1") };
        let connection = seen.requests.get(place).map(|request| request.connection);
        let later = seen.requests.get(place + 1..).unwrap_or_default();
        if later.is_empty() {
            return skip("the client asks for nothing after an Error packet");
        }
        let used = later.iter().any(|request| Some(request.connection) == connection);
        ensure(used, || format!("{} requests, all on other connections", later.len()))
    };
    "VTX-CLS-008" Both Nothing 4/1 "no request on a connection on which Close has come" => |asked| {
        if asked.before == 0 && asked.number == 0 {
            return say(close(asked.right.id));
        }
        // What was asked for beside it is answered once Close has been read, and not before.
        [Step::Pause(asked.waits.quiet)].into_iter().chain(right(asked)).collect()
    }, |seen| {
        seen.first()?;
        let closed = seen.requests.iter().filter(|request| request.after_close).count();
        ensure(closed == 0, || format!("{closed} requests after Close"))
    };
    "VTX-CLS-009" Tcp Nothing 2/1 "the task, although Close follows each answer" => |asked| {
        say(Draft { trailing: close(0), ..asked.right }.encode())
    }, |seen| {
        seen.taken()?;
        let after = seen.requests.iter().filter(|request| request.after_close).count();
        ensure(after == 0, || format!("{after} requests after Close"))
    };
    "VTX-TCP-016" Tcp Nothing 1/1 "the end in place of an answer taken for no answer" => |_| vec![Step::Fin], |seen| seen.refused();
    "VTX-TCP-017" Tcp Nothing 3/1 "a request sent again once the connection turns out to be stale" => |asked| {
        if asked.on_connection > 0 { vec![Step::CloseConnection(0)] } else { right(asked) }
    }, |seen| {
        let reused = seen.connections.len() < seen.downloads().count();
        if !reused && seen.taken().is_ok() { skip("the client uses no connection twice") } else { seen.taken() }
    };
    "VTX-TCP-018/number" Tcp Nothing 3/1 "a connection closed after another piece's number" => |asked| {
        if asked.number == 0 { say(Draft { number: 7, ..asked.right }.encode()) } else { right(asked) }
    }, |seen| seen.not_used_again();
    "VTX-TCP-018/decode" Tcp Nothing 3/1 "a connection closed after an answer that does not decode" => |asked| {
        if asked.number == 0 { say(packet(asked.right.id, 0x01, 40, &[0; 40])) } else { right(asked) }
    }, |seen| seen.not_used_again();
    "VTX-TCP-020" Tcp Nothing 3/1 "a piece taken, and its connection closed, when a byte follows it" => |asked| {
        say(Draft { trailing: b"!".to_vec(), ..asked.right }.encode())
    }, |seen| {
        seen.taken()?;
        seen.not_used_again()
    };
    "VTX-SEC-008" Both Nothing 2/2 "a piece asked of another server after a wrong one" => corrupt, |seen| {
        seen.first()?;
        seen.taken()?;
        for number in 0..2 {
            let servers: Vec<usize> = seen.downloads()
                .filter(|request| request.number == Some(number))
                .map(|request| request.server)
                .collect();
            if servers.windows(2).any(|pair| pair == [0, 0]) {
                return fail(format!("piece {number} asked of the same server again: {servers:?}"));
            }
        }
        Ok(())
    };
}

/// The answer, and then nothing: the stream stays open.
fn held(draft: Draft) -> Reply {
    vec![Step::Send(draft.encode()), Step::Hold]
}

fn reset_with(asked: &Asked, code: u32) -> Reply {
    let bytes = asked.right.encode();
    let some = bytes.get(..1000).unwrap_or_default().to_vec();
    vec![Step::Send(some), Step::Pause(asked.waits.quiet / 4), Step::Reset(code)]
}
