//! Scenarios: what happens in a run, and what has to hold.

mod early;
mod echo;
mod idle;
mod peers;
mod shutdown;
mod transfer;

use crate::world::Sim;
use std::time::Duration;
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

    /// Sets hosts and faults up, and ends when everything that had to happen did.
    fn run(&self, sim: Sim) -> BoxFuture<'static, Outcome>;
}

/// Every scenario.
pub fn all() -> &'static [&'static dyn Scenario] {
    const ALL: &[&dyn Scenario] = &[
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
    ];
    ALL
}

/// The scenario called `name`.
pub fn find(name: &str) -> Option<&'static dyn Scenario> {
    all().iter().copied().find(|scenario| scenario.name() == name)
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
