//! Every limit of a server in one place: its setting, its reason, and what whoever meets it is told.

use super::ServerSettings;
use std::num::NonZeroU64;

/// How much a server takes on. Whoever is above waits for a turn or is refused, and told so ([`Limit`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerLimits {
    /// Connections in total, QUIC, TCP and gRPC together. Each costs a task and buffers; the proposal's `max_connections`.
    pub connections: usize,
    /// Connections of one address. Deployed clients open up to 32 to one peer; several may stand behind one address.
    pub connections_per_address: usize,
    /// QUIC handshakes under way from which on an address has to prove itself by a Retry: half-open connections cost the
    /// attacker one forged datagram each, and the honest client one round trip.
    pub half_open: usize,
    /// Answers under way on one connection: as many as QUIC streams are granted.
    pub answers_per_connection: usize,
    /// Answers under way in total. Each is a task with its request.
    pub answers: usize,
    /// Bytes of content that answers on one connection hold in memory: what the windows of a connection let out, so that
    /// one that does not read holds no more than one that does.
    pub memory_per_connection: u64,
    /// Bytes of content that all answers hold in memory. What `sendfile` sends is not in memory.
    pub memory: u64,
    /// Bytes that QUIC connections, all together, may send beyond what is acknowledged and beyond the least that each may in
    /// any case ([`QuicSettings::least_send_window`](crate::transport::quic::QuicSettings)): what is not acknowledged is in
    /// memory. Whoever wants more than is left keeps the window that it has.
    pub windows: u64,
    /// Bytes a second, of all answers together; connections that wait get equal shares. None: as many as there are.
    pub bandwidth: Option<NonZeroU64>,
    /// Requests a second, of all connections together, which take turns. None: as many as come.
    pub requests: Option<NonZeroU64>,
    /// Bytes a second at which an answer has to be taken, beside the progress deadline: a client that takes a byte of it
    /// now and then would hold its memory and its place for ever.
    pub least_rate: NonZeroU64,
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
            memory_per_connection: 16 << 20,
            memory: 1 << 30,
            windows: 1 << 30,
            bandwidth: None,
            requests: None,
            least_rate: NonZeroU64::MIN.saturating_add((64 << 10) - 1),
        }
    }
}

/// A limit that somebody has met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error("{}", self.told())]
pub enum Limit {
    /// [`ServerLimits::connections`].
    Connections,
    /// [`ServerLimits::connections_per_address`].
    ConnectionsPerAddress,
    /// [`ServerLimits::half_open`].
    HalfOpen,
    /// [`ServerLimits::answers_per_connection`].
    AnswersPerConnection,
    /// [`ServerLimits::answers`].
    Answers,
    /// [`ServerLimits::memory_per_connection`] and [`ServerLimits::memory`].
    Memory,
    /// [`ServerLimits::windows`].
    Windows,
    /// [`ServerLimits::bandwidth`].
    Bandwidth,
    /// [`ServerLimits::requests`].
    Requests,
    /// [`ServerLimits::least_rate`], and the progress deadline.
    LeastRate,
    /// The request deadline, for handshakes too.
    RequestDeadline,
    /// The answer deadline.
    AnswerDeadline,
}

impl Limit {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Connections,
        Self::ConnectionsPerAddress,
        Self::HalfOpen,
        Self::AnswersPerConnection,
        Self::Answers,
        Self::Memory,
        Self::Windows,
        Self::Bandwidth,
        Self::Requests,
        Self::LeastRate,
        Self::RequestDeadline,
        Self::AnswerDeadline,
    ];

    /// Its name in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::ConnectionsPerAddress => "connections_per_address",
            Self::HalfOpen => "half_open",
            Self::AnswersPerConnection => "answers_per_connection",
            Self::Answers => "answers",
            Self::Memory => "memory",
            Self::Windows => "windows",
            Self::Bandwidth => "bandwidth",
            Self::Requests => "requests",
            Self::LeastRate => "least_rate",
            Self::RequestDeadline => "request_deadline",
            Self::AnswerDeadline => "answer_deadline",
        }
    }

    /// What whoever met it is told, where there is a packet to tell it in.
    #[must_use]
    pub const fn told(self) -> &'static str {
        match self {
            Self::Connections => "too many connections: the limit of this server is reached",
            Self::ConnectionsPerAddress => "too many connections from this address",
            Self::HalfOpen => "too many handshakes: prove the address first",
            Self::AnswersPerConnection => "too many requests: the limit of this connection is reached",
            Self::Answers => "too many requests: the limit of this server is reached",
            Self::Memory => "too many answers in memory: none became free by the deadline",
            Self::Windows => "the windows of this server are used up",
            Self::Bandwidth => "the bandwidth of this server is used up",
            Self::Requests => "too many requests a second: no turn came by the deadline",
            Self::LeastRate => "the answer was taken too slowly",
            Self::RequestDeadline => "the request was not complete by its deadline",
            Self::AnswerDeadline => "the store did not answer by its deadline",
        }
    }

    /// What it is set to: connections, answers, bytes, bytes or requests a second, seconds. None: there is no such limit.
    #[must_use]
    pub fn value(self, settings: &ServerSettings) -> Option<u64> {
        let ServerSettings { deadlines, limits, .. } = settings;
        Some(match self {
            Self::Connections => limits.connections as u64,
            Self::ConnectionsPerAddress => limits.connections_per_address as u64,
            Self::HalfOpen => limits.half_open as u64,
            Self::AnswersPerConnection => limits.answers_per_connection as u64,
            Self::Answers => limits.answers as u64,
            Self::Memory => limits.memory,
            Self::Windows => limits.windows,
            Self::Bandwidth => limits.bandwidth?.get(),
            Self::Requests => limits.requests?.get(),
            Self::LeastRate => limits.least_rate.get(),
            Self::RequestDeadline => deadlines.request.as_secs(),
            Self::AnswerDeadline => deadlines.answer.as_secs(),
        })
    }
}
