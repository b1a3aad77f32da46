//! What a server is told, and how much it takes on.

use crate::session::Deadlines;

/// The settings of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerSettings {
    /// How long each step may take.
    pub deadlines: Deadlines,
    /// How much is taken on at a time.
    pub limits: ServerLimits,
    /// Whether the extensions are answered. Without them, a server is to its clients like a deployed one.
    pub extensions: bool,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self { deadlines: Deadlines::default(), limits: ServerLimits::default(), extensions: true }
    }
}

/// How much a server takes on at a time. What is above is refused, and told so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerLimits {
    /// Connections in total, QUIC and TCP together. Each costs a task and buffers; the proposal's `max_connections`.
    pub connections: usize,
    /// Connections of one address. Deployed clients open up to 32 to one peer; several may stand behind one address.
    pub connections_per_address: usize,
    /// QUIC handshakes under way from which on an address has to prove itself by a Retry: half-open connections cost the
    /// attacker one forged datagram each, and the honest client one round trip.
    pub half_open: usize,
    /// Answers under way on one connection: as many as QUIC streams are granted.
    pub answers_per_connection: usize,
    /// Answers under way in total. Each holds a buffer of content.
    pub answers: usize,
}

impl Default for ServerLimits {
    fn default() -> Self {
        //= VTX-LIM-006
        //= VTX-LIM-007
        Self {
            connections: 1000,
            connections_per_address: 256,
            half_open: 64,
            answers_per_connection: 100,
            answers: 10_000,
        }
    }
}
