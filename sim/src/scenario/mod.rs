//! Scenarios: what happens in a run, and what has to hold.

mod disks;
mod early;
mod echo;
mod hostile;
mod idle;
mod interop;
mod many;
mod negotiation;
mod peers;
mod pool;
mod replay;
pub(crate) mod research;
mod resume;
mod shutdown;
mod suites;
pub(crate) mod swarm;
mod tap;
mod transfer;

use crate::world::Sim;
use interop::{Interop, Line};
use std::fmt;
use std::sync::LazyLock;
use std::time::Duration;
use swarm::Swarm;
use transfer::{Transfer, Trouble, Via};
use vortex_p2p::runtime::BoxFuture;

/// Why a run is a failure.
pub type Violation = Box<dyn std::error::Error + Send + Sync>;

/// How a run ended.
pub type Outcome = Result<(), Violation>;

/// A world in which something happens, with its own idea of what has to hold.
pub trait Scenario: Send + Sync {
    /// What the command line calls it.
    fn name(&self) -> &'static str;

    /// What it shows, in one line.
    fn about(&self) -> &'static str;

    /// How long it may take in virtual time.
    fn limit(&self) -> Duration {
        Duration::from_secs(120)
    }

    /// Of how many seeds one is run where all scenarios are: a scenario that costs as much as twenty others gets a
    /// twentieth of the seeds.
    fn every(&self) -> u64 {
        1
    }

    /// Sets hosts and faults up, and ends when everything that had to happen did.
    fn run(&self, sim: Sim) -> BoxFuture<'static, Outcome>;
}

impl fmt::Debug for dyn Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Every scenario.
pub fn all() -> &'static [&'static dyn Scenario] {
    static ALL: LazyLock<Vec<&dyn Scenario>> = LazyLock::new(|| {
        let lines = LINES.iter().map(|line| line as &dyn Scenario);
        OWN.iter().copied().chain(lines).collect()
    });
    &ALL
}

/// Scenarios of Vortex.
const OWN: &[&dyn Scenario] = &[
    &echo::Echo,
    &Transfer {
        name: "quic-loss",
        about: "a file over QUIC while packets are lost, repeated, changed, delayed and reordered",
        via: Via::Quic,
        trouble: Trouble::Packets,
    },
    &Transfer {
        name: "quic-partition",
        about: "a file over QUIC while the path is cut or held, for shorter and longer than the idle timeout",
        via: Via::Quic,
        trouble: Trouble::Partition,
    },
    &Transfer {
        name: "tcp-loss",
        about: "a file over TCP while packets are lost, repeated, changed, delayed and reordered",
        via: Via::Tcp,
        trouble: Trouble::Packets,
    },
    &Transfer {
        name: "tcp-partition",
        about: "a file over TCP while the path is cut or held",
        via: Via::Tcp,
        trouble: Trouble::Partition,
    },
    &early::Early,
    &shutdown::Shutdown,
    &idle::Idle,
    &negotiation::Negotiation,
    &many::ManyPeers,
    &resume::Resume,
    &pool::Pool,
    &replay::Replay,
    &disks::Disks,
    &hostile::Hostile,
    &Swarm {
        name: "swarm",
        about: "a seed and 100 leechers, each serving what it has while it fetches",
        leechers: 100,
    },
];

/// The lines of the interop runner's list that are scenarios of their own.
const LINES: &[Interop] = &[
    Interop {
        name: "handshake-loss",
        about: "five handshakes while 30 % of all packets are lost",
        line: Line::HandshakeLoss,
    },
    Interop {
        name: "handshake-corruption",
        about: "five handshakes while 30 % of all packets are changed",
        line: Line::HandshakeCorruption,
    },
    Interop { name: "long-rtt", about: "a file over a round trip of 750 ms", line: Line::LongRtt },
    Interop {
        name: "multiplexing",
        about: "2,000 pieces over one connection, 500 requests at a time",
        line: Line::Multiplexing,
    },
    Interop { name: "chacha20", about: "a file under ChaCha20-Poly1305", line: Line::ChaCha20 },
    Interop {
        name: "flow-control",
        about: "a file through windows of 16 and 40 KiB",
        line: Line::FlowControl,
    },
    Interop { name: "retry", about: "a server that has every address prove itself", line: Line::Retry },
    Interop {
        name: "resumption",
        about: "a handshake that goes on from a session, without early data",
        line: Line::Resumption,
    },
    Interop { name: "ipv6", about: "a file over IPv6", line: Line::Ipv6 },
    Interop { name: "ecn", about: "a queue that marks instead of dropping, and is heard", line: Line::Ecn },
    Interop {
        name: "blackhole",
        about: "a path that is dead for 2.5 s: the connection survives",
        line: Line::Blackhole,
    },
    Interop {
        name: "mtu-blackhole",
        about: "a path that from some moment on swallows large packets: the connection survives",
        line: Line::MtuBlackhole,
    },
    Interop {
        name: "key-update",
        about: "a file while the client changes keys every four round trips",
        line: Line::KeyUpdate,
    },
    Interop {
        name: "rebind-port",
        about: "a NAT that gives the client other ports, twice: the connection survives",
        line: Line::RebindPort,
    },
    Interop {
        name: "rebind-addr",
        about: "a NAT that gives the client other addresses, twice: the connection survives",
        line: Line::RebindAddress,
    },
    Interop {
        name: "migration",
        about: "a client that moves to another socket, twice: the connection survives",
        line: Line::Migration,
    },
    Interop {
        name: "amplification",
        about: "a client that is heard once: no more than three times its bytes come back",
        line: Line::Amplification,
    },
    Interop {
        name: "version-negotiation",
        about: "a version that nobody speaks is answered with those that are",
        line: Line::VersionNegotiation,
    },
    Interop {
        name: "goodput",
        about: "a megabyte at 10 Mbit/s in at most 1.5 times the least time",
        line: Line::Goodput,
    },
    Interop {
        name: "crosstraffic",
        about: "QUIC and TCP through one uplink of 10 Mbit/s",
        line: Line::CrossTraffic,
    },
];

/// Scenarios that take minutes for one seed: run by name only.
const LONG: &[&dyn Scenario] = &[
    &Swarm { name: "swarm-8", about: "a seed and 8 leechers", leechers: 8 },
    &Swarm { name: "swarm-32", about: "a seed and 32 leechers", leechers: 32 },
    &Swarm { name: "swarm-1000", about: "a seed and 1,000 leechers; takes minutes", leechers: 1_000 },
];

/// The scenario called `name`, one of [`all`] or a long one.
pub fn find(name: &str) -> Option<&'static dyn Scenario> {
    all().iter().chain(LONG).copied().find(|scenario| scenario.name() == name)
}

/// Fails the run unless a condition holds.
#[macro_export]
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err(format!($($message)+).into());
        }
    };
}
