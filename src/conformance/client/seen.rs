//! What a client did, and what is made of it.

use super::Outcome;
use crate::conformance::case::{Shown, Stop, blame, fail, skip};
use crate::conformance::observe::Hello;
use bytes::Bytes;
use std::time::Instant;

/// A request that arrived.
#[derive(Debug, Clone)]
pub(super) struct Request {
    /// Which server, from 0.
    pub(super) server: usize,
    /// Which connection, of all servers.
    pub(super) connection: usize,
    /// The bytes of the packet.
    pub(super) bytes: Bytes,
    /// The piece number, of a Download packet.
    pub(super) number: Option<u32>,
    /// Whether the client finished its side directly after it (QUIC).
    pub(super) finished: bool,
    /// The code of the STOP_SENDING that came (QUIC).
    pub(super) stopped: Option<u64>,
    /// Whether a Close packet had been sent on the connection before, by whomever.
    pub(super) after_close: bool,
}

/// A connection that was made.
#[derive(Debug, Clone, Default)]
pub(super) struct Connection {
    pub(super) hello: Option<Hello>,
    /// Whether the client ended it, or left.
    pub(super) ended: bool,
    /// When a Close packet was sent on it first, by whomever.
    pub(super) closed_at: Option<Instant>,
    /// Whether the client opened a unidirectional stream.
    pub(super) unidirectional: bool,
}

/// All that was seen in a case.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) requests: Vec<Request>,
    pub(super) connections: Vec<Connection>,
    /// Requirements that requests broke, and how.
    pub(super) notes: Vec<(&'static str, String)>,
    /// Application protocols that were offered.
    pub(super) alpn: Vec<String>,
    /// Connections that were tried where nobody answers (QUIC).
    pub(super) attempts: usize,
    pub(super) outcome: Outcome,
    /// What the task is.
    pub(super) content: Bytes,
}

impl Seen {
    /// Whether there is anything to judge.
    pub(super) fn may_be_judged(&self, case: &str) -> Shown {
        if case.starts_with("VTX-QUC-002") {
            return Ok(());
        }
        if !self.alpn.is_empty() {
            return blame("VTX-QUC-002", format!("the client offers {:?}", self.alpn));
        }
        let needs_request = !case.starts_with("VTX-LIM-004");
        match &self.outcome {
            Outcome::Unknown if needs_request && self.requests.is_empty() => skip("no client has asked"),
            Outcome::Failed(why) if needs_request && self.requests.is_empty() => {
                blame("VTX-REQ-001", format!("no request arrived, and the client says: {why}"))
            }
            _ => Ok(()),
        }
    }

    /// The client has the task, as it is.
    pub(super) fn taken(&self) -> Shown {
        match &self.outcome {
            Outcome::Done(content) if *content == self.content => Ok(()),
            Outcome::Done(content) => fail(format!(
                "the client says it has the task, but it has {} bytes that differ from the {} of it",
                content.len(),
                self.content.len()
            )),
            Outcome::Failed(why) => fail(format!("the client says: {why}")),
            Outcome::Unable(why) => skip(why),
            Outcome::Unknown => skip("only the client can say: needs --command"),
        }
    }

    /// The client says that it does not have the task.
    pub(super) fn refused(&self) -> Shown {
        match &self.outcome {
            Outcome::Done(_) => fail("the client says that it has the task"),
            Outcome::Failed(why) if why.contains("did not end within") => fail(why),
            Outcome::Failed(_) => Ok(()),
            Outcome::Unable(why) => skip(why),
            Outcome::Unknown => skip("only the client can say: needs --command"),
        }
    }

    /// No request broke the requirement.
    pub(super) fn not_noted(&self, requirement: &str) -> Shown {
        match self.notes.iter().find(|(noted, _)| *noted == requirement) {
            Some((_, note)) => fail(note),
            None => Ok(()),
        }
    }

    /// Requests for pieces.
    pub(super) fn downloads(&self) -> impl Iterator<Item = &Request> {
        self.requests.iter().filter(|request| request.number.is_some())
    }

    /// The first request for a piece at the first server; without one, nothing is shown.
    pub(super) fn first(&self) -> Shown<&Request> {
        let mut requests = self.downloads().filter(|request| request.server == 0);
        requests
            .next()
            .ok_or_else(|| Stop::Skip("the client asked the server of the case for nothing".to_owned()))
    }

    /// The first request for piece 0, to which the answer is that of the case where it is so for one piece only. Others may
    /// have come before: a client asks for several at once.
    fn of_case(&self) -> Shown<&Request> {
        let first = self.first()?;
        let mut requests = self.downloads().filter(|request| request.server == 0);
        Ok(requests.find(|request| request.number == Some(0)).unwrap_or(first))
    }

    /// The client has given a request up: it says so, or has left, or asks once more.
    pub(super) fn given_up(&self) -> Shown {
        let request = self.of_case()?;
        let left = self.connections.get(request.connection).is_some_and(|connection| connection.ended);
        let again = self.downloads().filter(|other| other.number == request.number).count() > 1;
        self.refused()
            .or_else(|stop| if left || again || request.stopped.is_some() { Ok(()) } else { Err(stop) })
    }

    /// The client has given a connection attempt up: it says so, or makes another.
    pub(super) fn attempt_given_up(&self) -> Shown {
        self.refused().or_else(|stop| if self.attempts > 1 { Ok(()) } else { Err(stop) })
    }

    /// The request of the case was stopped with `code` (QUIC).
    pub(super) fn stopped_with(&self, code: u64) -> Shown {
        let first = self.of_case()?;
        let on_it = |request: &&Request| request.connection == first.connection;
        let ended = self.connections.get(first.connection).is_some_and(|connection| connection.ended);
        match first.stopped {
            Some(got) if got == code => Ok(()),
            Some(got) => fail(format!("STOP_SENDING with code {got}")),
            // With the connection all of its streams end, and what was to be said on them is not.
            None if ended && self.requests.iter().filter(on_it).count() == 1 => {
                skip("the client closed the connection at once")
            }
            None => fail("no STOP_SENDING"),
        }
    }

    /// Nothing was asked on the connection of the case's request after it.
    pub(super) fn not_used_again(&self) -> Shown {
        let first = self.of_case()?;
        let on_it = self.requests.iter().filter(|request| request.connection == first.connection);
        match on_it.skip_while(|request| !std::ptr::eq(*request, first)).count() {
            1 => Ok(()),
            count => fail(format!("{count} requests on that connection")),
        }
    }

    /// Each greeting that was heard.
    pub(super) fn hellos(&self) -> Shown<Vec<&Hello>> {
        let hellos: Vec<_> =
            self.connections.iter().filter_map(|connection| connection.hello.as_ref()).collect();
        if hellos.is_empty() { skip("no handshake") } else { Ok(hellos) }
    }
}
