//! A ticket: one word that says what to fetch, from whom, and by which certificate to know them.
//!
//! ```text
//! vortex1/piece/9f86d0…/5c1b7e…/quic@192.0.2.1:4006/tcp@192.0.2.1:4005
//! version kind  task id fingerprint, peers
//! ```
//!
//! A server without a certificate authority prints one, and a client takes it in place of a task id and peers. It has no
//! character that a shell interprets. It holds no secret: it says how to know the server, not how to be let in.

use crate::downloader::{Peer, Protocol};
use crate::store::TaskKey;
use crate::transport::tls::Fingerprint;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// What a ticket begins with; a later form has another number.
const VERSION: &str = "vortex1";

/// Peers that a ticket names at most: protocols times the addresses of a machine, with room.
pub const MAX_PEERS: usize = 16;

/// What to fetch, and from whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// The task.
    pub task: TaskKey,
    /// The SHA-256 of the certificate that all of the peers show.
    pub fingerprint: Fingerprint,
    /// Where it is served, at least once and at most [`MAX_PEERS`] times.
    pub peers: Vec<Peer>,
}

/// The text is no ticket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// It does not begin like one.
    #[error("a ticket begins with {VERSION}/, as `vortex serve` prints it")]
    NotATicket,
    /// A part is missing or wrong.
    #[error("the {part} of the ticket: {problem}")]
    Part {
        /// Which part.
        part: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// There is nobody, or too many, to ask.
    #[error("a ticket names 1 to {MAX_PEERS} peers, found {0}")]
    Peers(usize),
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{VERSION}/{}/{}/{}", self.task.kind, self.task.id, self.fingerprint)?;
        // Without the brackets of an IPv6 address, which shells take for a pattern; the last colon is the port's.
        let peers = self.peers.iter().map(|peer| (peer.protocol, peer.address.ip(), peer.address.port()));
        peers.into_iter().try_for_each(|(protocol, ip, port)| write!(f, "/{protocol}@{ip}:{port}"))
    }
}

impl FromStr for Ticket {
    type Err = TicketError;
    fn from_str(text: &str) -> Result<Self, TicketError> {
        let mut parts = text.trim().split('/');
        if parts.next() != Some(VERSION) {
            return Err(TicketError::NotATicket);
        }
        let task = TaskKey { kind: part("kind", parts.next())?, id: part("task id", parts.next())? };
        let fingerprint = part("fingerprint", parts.next())?;
        let count = parts.clone().count();
        if !(1..=MAX_PEERS).contains(&count) {
            return Err(TicketError::Peers(count));
        }
        let peers = parts.map(peer).collect::<Result<_, _>>()?;
        Ok(Self { task, fingerprint, peers })
    }
}

fn part<T: FromStr<Err: fmt::Display>>(part: &'static str, text: Option<&str>) -> Result<T, TicketError> {
    let problem = |problem: String| TicketError::Part { part, problem };
    text.unwrap_or_default().parse().map_err(|error: T::Err| problem(error.to_string()))
}

fn peer(text: &str) -> Result<Peer, TicketError> {
    let problem = || TicketError::Part {
        part: "peer",
        problem: format!("expected PROTOCOL@ADDRESS:PORT, found `{}`", crate::wire::Escaped(text)),
    };
    let (name, address) = text.split_once('@').ok_or_else(problem)?;
    let protocol = Protocol::ALL.into_iter().find(|it| it.name() == name).ok_or_else(problem)?;
    let (ip, port) = address.rsplit_once(':').ok_or_else(problem)?;
    let ip: IpAddr = ip.parse().map_err(|_| problem())?;
    let port = port.parse().map_err(|_| problem())?;
    Ok(Peer { protocol, address: SocketAddr::new(ip, port) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{PieceKind, TaskId};
    use proptest::prelude::*;

    fn tickets() -> impl Strategy<Value = Ticket> {
        let kind = proptest::sample::select(&PieceKind::ALL[..]);
        let protocol = proptest::sample::select(&Protocol::ALL[..]);
        let peer = (protocol, any::<IpAddr>(), any::<u16>())
            .prop_map(|(protocol, ip, port)| Peer { protocol, address: SocketAddr::new(ip, port) });
        let peers = proptest::collection::vec(peer, 1..=MAX_PEERS);
        (kind, any::<[u8; 32]>(), any::<[u8; 32]>(), peers).prop_map(|(kind, id, pin, peers)| Ticket {
            task: TaskKey { kind, id: TaskId::from_sha256(id) },
            fingerprint: TaskId::from_sha256(pin).as_str().parse().unwrap(),
            peers,
        })
    }

    proptest! {
        #[test]
        fn a_ticket_survives_being_written(ticket in tickets()) {
            let text = ticket.to_string();
            prop_assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/@:.-".contains(&byte)), "{}", text);
            prop_assert_eq!(text.parse(), Ok(ticket));
        }

        #[test]
        fn anything_else_is_refused_without_a_panic(text in ".{0,200}", tail in "[a-z0-9/@:.]{0,300}") {
            prop_assert!(text.parse::<Ticket>().is_err());
            let _ = format!("{VERSION}/{tail}").parse::<Ticket>();
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let task = "ab".repeat(32);
        for (text, message) in [
            ("vortex2/piece", "a ticket begins with vortex1/, as `vortex serve` prints it".to_owned()),
            (
                "vortex1/pieces",
                "the kind of the ticket: expected piece, persistent, persistent-cache or cache".into(),
            ),
            (&format!("vortex1/piece/{task}/{task}"), "a ticket names 1 to 16 peers, found 0".into()),
            (
                &format!("vortex1/piece/{task}/{task}/udp@127.0.0.1:1"),
                "the peer of the ticket: expected PROTOCOL@ADDRESS:PORT, found `udp@127.0.0.1:1`".into(),
            ),
        ] {
            assert_eq!(text.parse::<Ticket>().unwrap_err().to_string(), message);
        }
    }
}
