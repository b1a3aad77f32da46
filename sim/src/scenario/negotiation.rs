//! A peer that speaks QUIC and TCP, on paths of which one or the other is blocked, or becomes so: the way that works is
//! found, and costs little.

use super::peers::{self, File};
use super::{Outcome, Scenario, Violation};
use crate::ensure;
use crate::faults::{Fault, lock};
use crate::host::Host;
use crate::net::{Bandwidth, Conditions, HostId};
use crate::rng::Rng;
use crate::trace;
use crate::world::Sim;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use vortex_p2p::downloader::transfer::{Event, Transfer};
use vortex_p2p::downloader::{AutoDownloader, AutoEvent, AutoSettings, Peer, PoolSettings, Protocol};
use vortex_p2p::runtime::BoxFuture;
use vortex_p2p::store::MemoryStore;

/// The share by which a negotiated transfer may take longer than the best way alone, and a fixed time to find that way.
const SHARE: f64 = 1.25;
const FINDING: Duration = Duration::from_secs(1);
/// TCP's least timeout. A queue that overflows costs one of two transfers that are compared such a silence, and spares the
/// other; where that is seen, it counts for nothing.
const TIMEOUT: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(super) struct Negotiation;

impl Scenario for Negotiation {
    fn name(&self) -> &'static str {
        "negotiation"
    }

    fn about(&self) -> &'static str {
        "QUIC or TCP blocked, at first or midway: the way that works is found, and costs at most a quarter more"
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(300)
    }

    fn run(&self, sim: Sim) -> BoxFuture<'static, Outcome> {
        Box::pin(run(sim))
    }
}

/// What a firewall before the server swallows, and from when on.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Blocked {
    Nothing,
    Quic,
    Tcp,
    QuicMidway,
}

impl Blocked {
    fn draw(rng: &mut Rng) -> Self {
        match rng.below(4) {
            0 => Self::Nothing,
            1 => Self::Quic,
            2 => Self::Tcp,
            _ => Self::QuicMidway,
        }
    }

    fn blocks(self, protocol: Protocol) -> bool {
        matches!((self, protocol), (Self::Quic, Protocol::Quic) | (Self::Tcp, Protocol::Tcp))
    }
}

async fn run(sim: Sim) -> Outcome {
    let mut rng = sim.rng("negotiation");
    let latency = rng.duration(Duration::from_millis(1)..Duration::from_millis(40));
    let link = Bandwidth::mbit(rng.range(8..40), Duration::from_millis(100));
    sim.net().set_default(Conditions::latency(latency).with_bandwidth(link));
    let length = rng.range(1 << 20..6 << 20) as usize;
    let file = File::draw(&mut rng, length, 64 << 10)?;
    let served = file.clone();
    let server = sim.host("server", move |host| peers::serve(host, served.clone()));
    let blocked = Blocked::draw(&mut rng);
    let ways = [Protocol::Quic, Protocol::Tcp].map(|protocol| peers::peer(server.id(), protocol));
    for way in ways.iter().filter(|way| blocked.blocks(way.protocol)) {
        sim.net().block(server.id(), on_the_wire(way.protocol));
    }

    // Each way alone, one after another, as far as it is open; each by a client that knows nothing yet.
    let mut best: Option<Fetched> = None;
    for way in ways.iter().copied().filter(|way| !blocked.blocks(way.protocol)) {
        let file = file.clone();
        let name = format!("{}-alone", way.protocol);
        let client = sim.client(&name, move |host| fetch(host, file, vec![way], None));
        let fetched = client.result().await.ok_or("the client ended without a result")??;
        if best.as_ref().is_none_or(|best| fetched.took < best.took) {
            best = Some(fetched);
        }
    }
    let Fetched { took: best, silence: silent, .. } = best.ok_or("no way is open")?;

    let firewall =
        (blocked == Blocked::QuicMidway).then(|| (sim.clone(), server.id(), rng.range(1..8) as usize));
    let client = sim.client("auto", move |host| fetch(host, file, ways.to_vec(), firewall));
    let fetched = client.result().await.ok_or("the client ended without a result")??;
    let told = |protocol, wanted: fn(&AutoEvent) -> bool| {
        let about = |event: &AutoEvent| match event {
            AutoEvent::Open { way, .. }
            | AutoEvent::Late { way, .. }
            | AutoEvent::Closed { way, .. }
            | AutoEvent::Taken { way, .. } => way.protocol == protocol,
        };
        fetched.events.iter().any(|event| about(event) && wanted(event))
    };
    if blocked == Blocked::QuicMidway {
        // The rest is fetched at the pace of a path that is noticed to be silent.
        let silence = AutoSettings::default().silence;
        let allowed = best.mul_f64(SHARE) * 2 + FINDING + silence * 2;
        ensure!(fetched.took <= allowed, "{:?}, and the best way alone takes {best:?}", fetched.took);
    } else {
        let timeout = match blocked {
            Blocked::Quic => fetched.silence.saturating_sub(silent).min(TIMEOUT),
            _ => Duration::ZERO,
        };
        let allowed = best.mul_f64(SHARE) + FINDING + timeout;
        ensure!(
            fetched.took <= allowed,
            "{blocked:?}: {:?}, and the best way alone takes {best:?}",
            fetched.took
        );
    }
    if blocked == Blocked::Quic {
        let reason = |event: &AutoEvent| matches!(event, AutoEvent::Late { .. } | AutoEvent::Closed { .. });
        ensure!(told(Protocol::Quic, reason), "nobody was told why not over QUIC: {:?}", fetched.events);
    }
    let ledger = sim.ledger();
    let reasons = fetched
        .events
        .iter()
        .filter(|event| matches!(event, AutoEvent::Late { .. } | AutoEvent::Closed { .. }));
    ledger.noticed(reasons.count() as u64, &[Fault::Cut]);
    let states = [
        ("negotiation: QUIC was blocked, and TCP taken", Blocked::Quic),
        ("negotiation: TCP was blocked, and QUIC taken", Blocked::Tcp),
        ("negotiation: both were open, and measured", Blocked::Nothing),
        ("negotiation: QUIC fell silent midway, and TCP went on", Blocked::QuicMidway),
    ];
    for (state, with) in states {
        ledger.expect_sometimes(state);
        let reached = match with {
            Blocked::Quic => fetched.bytes == [0, length as u64],
            Blocked::Tcp => fetched.bytes == [length as u64, 0],
            Blocked::Nothing | Blocked::QuicMidway => fetched.bytes.iter().all(|bytes| *bytes > 0),
        };
        if blocked == with && reached {
            ledger.sometimes(state);
        }
    }
    Ok(())
}

fn on_the_wire(protocol: Protocol) -> trace::Protocol {
    if protocol == Protocol::Quic { trace::Protocol::Udp } else { trace::Protocol::Tcp }
}

struct Fetched {
    took: Duration,
    /// The longest time between two pieces.
    silence: Duration,
    /// Bytes over each way.
    bytes: Vec<u64>,
    events: Vec<AutoEvent>,
}

/// Fetches the file over `ways`; after some pieces, a firewall begins to swallow QUIC where there is one.
async fn fetch(
    host: Host,
    file: Arc<File>,
    ways: Vec<Peer>,
    firewall: Option<(Sim, HostId, usize)>,
) -> Result<Fetched, Violation> {
    let runtime = host.runtime();
    let (factory, _) = peers::downloaders(&host, PoolSettings::default()).await?;
    let events = Arc::new(Mutex::new(Vec::new()));
    let observer = {
        let events = events.clone();
        Arc::new(move |event| lock(&events).push(event))
    };
    let auto = AutoDownloader::new(runtime.clone(), factory.clone(), AutoSettings::default(), Some(observer));
    let peer = match ways.as_slice() {
        [only] => *only,
        several => auto.join(several.iter().copied()).ok_or("no way")?,
    };
    let store = Arc::new(MemoryStore::new(runtime.clone()));
    let transfer =
        peers::transfer(&host, &file, store.clone(), factory.with(Arc::new(auto.clone())), vec![peer]);
    let arrivals = Arc::new(Mutex::new(Vec::new()));
    let observer = {
        let (runtime, arrivals) = (runtime.clone(), arrivals.clone());
        move |event| {
            let Event::Piece { .. } = event else { return };
            let mut arrivals = lock(&arrivals);
            arrivals.push(runtime.now());
            if let Some((sim, server, after)) = &firewall
                && arrivals.len() == *after
            {
                sim.net().block(*server, trace::Protocol::Udp);
            }
        }
    };
    let begun = runtime.now();
    Transfer { observer: Some(Arc::new(observer)), ..transfer }.run().await?;
    let took = runtime.now().saturating_duration_since(begun);
    file.check_store(&*store).await?;
    let bytes = auto.shares(peer.address).into_iter().map(|(_, bytes)| bytes).collect();
    let events = std::mem::take(&mut *lock(&events));
    let arrivals = std::mem::take(&mut *lock(&arrivals));
    let pairs = arrivals.iter().zip(arrivals.iter().skip(1));
    let silences = pairs.map(|(before, after)| after.saturating_duration_since(*before));
    Ok(Fetched { took, silence: silences.max().unwrap_or_default(), bytes, events })
}
