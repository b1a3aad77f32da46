//! One client fetches one file from one server, while the path between them misbehaves.
//!
//! Safety: every piece has the file's bytes, and an honest server's answer is never taken for a wrong one. Liveness: the
//! whole file is there within the scenario's limit of virtual time, whatever happened before the path healed.

use super::peers::{Effort, fetch_over_quic, fetch_over_tcp, serve, small_file};
use super::{Outcome, Scenario};
use crate::faults::{Fault, Level};
use crate::net::{Conditions, Loss};
use crate::world::{HostHandle, Sim};
use std::time::Duration;
use vortex_p2p::runtime::BoxFuture;

/// How a file is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Via {
    Quic,
    Tcp,
}

/// What the path does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// It loses, repeats, changes, delays and reorders packets.
    Packets,
    /// It is cut in one or both directions, or holds everything back, for up to longer than any idle timeout.
    Partition,
}

/// A transfer.
#[derive(Debug)]
pub(super) struct Transfer {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) via: Via,
    pub(super) trouble: Trouble,
}

/// Requests at a time over QUIC, connections over TCP.
const AT_ONCE: usize = 4;

impl Scenario for Transfer {
    fn name(&self) -> &'static str {
        self.name
    }

    fn about(&self) -> &'static str {
        self.about
    }

    fn limit(&self) -> Duration {
        match self.trouble {
            Trouble::Packets => Duration::from_secs(300),
            // Two rounds of at most 50 s. Then each side of a TCP connection may be about to wait for a minute: that is how
            // long its retransmission timer gets. And a minute for the rest.
            Trouble::Partition => Duration::from_secs(280),
        }
    }

    fn run(&self, sim: Sim) -> BoxFuture<'static, Outcome> {
        Box::pin(transfer(sim, self.via, self.trouble))
    }
}

async fn transfer(sim: Sim, via: Via, trouble: Trouble) -> Outcome {
    sim.net().set_default(conditions(&sim, via, trouble));
    let file = small_file(&mut sim.rng("file"))?;
    let served = file.clone();
    let server = sim.host("server", move |host| serve(host, served.clone()));
    let id = server.id();
    let client = sim.client("client", move |host| async move {
        match via {
            Via::Quic => fetch_over_quic(host, id, file, AT_ONCE).await,
            Via::Tcp => fetch_over_tcp(host, id, file, AT_ONCE).await,
        }
    });
    if trouble == Trouble::Partition {
        partition(&sim, client.host(), &server).await;
    }
    let effort = client.result().await.ok_or("the client ended without a result")??;
    write_down(&sim, via, effort);
    Ok(())
}

fn conditions(sim: &Sim, via: Via, trouble: Trouble) -> Conditions {
    let mut rng = sim.rng("path");
    let latency = rng.duration(Duration::from_millis(1)..Duration::from_millis(60));
    let jitter = rng.duration(Duration::ZERO..latency / 4);
    let path = Conditions { latency, jitter, ..Conditions::default() };
    match trouble {
        Trouble::Partition => path,
        Trouble::Packets => {
            let path = path.with_swarm(sim.swarm());
            // Some loss there is always: that is what the scenario is about.
            let loss = match path.loss {
                Loss::Independent(0.0) => Loss::Independent(0.01),
                loss => loss,
            };
            // A TCP that sends packets too large for the path, and is not told, never gets anywhere.
            let mtu = if via == Via::Tcp { Conditions::default().mtu } else { path.mtu };
            Conditions { loss, mtu, ..path }
        }
    }
}

/// Two times of trouble, each after some time of peace.
async fn partition(sim: &Sim, a: &HostHandle, b: &HostHandle) {
    let mut rng = sim.rng("partition");
    for _ in 0..2 {
        sim.sleep(rng.duration(Duration::ZERO..Duration::from_millis(400))).await;
        match rng.below(4) {
            0 => sim.net().cut(a.id(), b.id()),
            1 => sim.net().cut_one_way(a.id(), b.id()),
            2 => sim.net().cut_one_way(b.id(), a.id()),
            _ => sim.net().hold(a.id(), b.id()),
        }
        // Short ones are survived by retransmission, long ones outlive the connection.
        let lasts = match sim.swarm().level(Fault::Cut) {
            Level::Off | Level::Rare => Duration::from_millis(100)..Duration::from_secs(5),
            Level::Heavy => Duration::from_secs(20)..Duration::from_secs(50),
        };
        sim.sleep(rng.duration(lasts)).await;
        sim.heal(a, b);
    }
}

fn write_down(sim: &Sim, via: Via, effort: Effort) {
    let ledger = sim.ledger();
    let lossy =
        [Fault::Loss, Fault::Burst, Fault::Corrupt, Fault::Queue, Fault::Cut, Fault::Reorder, Fault::Hold];
    ledger.noticed(effort.lost + sim.net().tcp_retransmissions(), &lossy);
    ledger.noticed(effort.congested, &[Fault::Mark]);
    ledger.noticed(effort.smaller_packets, &[Fault::Blackhole]);
    ledger.noticed(effort.not_connected, &[Fault::Cut, Fault::Hold]);
    let (again, whole) = match via {
        Via::Quic => {
            ("QUIC: connected again after a connection was lost", "QUIC: whole file over one connection")
        }
        Via::Tcp => {
            ("TCP: connected again after a connection was lost", "TCP: whole file over the first connections")
        }
    };
    let first = if via == Via::Quic { 1 } else { AT_ONCE as u64 };
    for (state, reached) in [(again, effort.connections > first), (whole, effort.connections <= first)] {
        ledger.expect_sometimes(state);
        if reached {
            ledger.sometimes(state);
        }
    }
}
