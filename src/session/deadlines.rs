//! How long each step may take.

use std::time::Duration;

/// The deadlines of the specification's table, as settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// Client: from dialing until the handshake is complete. A peer that takes longer is dead or far; there are others.
    pub connect: Duration,
    /// Server: from the accepted stream, or the first byte of a packet, until the packet is complete.
    pub request: Duration,
    /// Server: from the complete request until the first byte of the answer is handed to the transport.
    pub answer: Duration,
    /// Server: between two bytes of an answer that the transport takes.
    pub progress: Duration,
    /// Client: from the request until the header of the answer is complete.
    pub first_byte: Duration,
    /// Client: from the request until the answer is complete.
    pub piece: Duration,
    /// Server on TCP: from the last answer until the first byte of the next packet.
    pub idle: Duration,
    /// Server on TCP: how long it discards what still arrives after a last Error packet.
    pub discard: Duration,
    /// Server: from the begin of a shutdown, or a received Close, until the last answer.
    pub shutdown: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        //= VTX-LIM-001
        Self {
            connect: Duration::from_secs(2),
            request: Duration::from_secs(10),
            answer: Duration::from_secs(30),
            progress: Duration::from_secs(30),
            first_byte: Duration::from_secs(30),
            piece: Duration::from_secs(360),
            idle: Duration::from_secs(30),
            discard: Duration::from_secs(1),
            shutdown: Duration::from_secs(30),
        }
    }
}
