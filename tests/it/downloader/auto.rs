//! Peers with several ways to them, over loopback, and a network that drops datagrams.

use super::told::{NO_TLS, TLS};
use super::transfer::{read, transfer};
use super::world::{Served, content, dialer, dialer_on, downloaders, network, runtime, task};
use crate::firewall::Firewalled;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use vortex_p2p::downloader::transfer::{Event, Transfer, describe};
use vortex_p2p::downloader::{
    AutoDownloader, AutoEvent, AutoSettings, ConnectError, DownloaderFactory, Peer, PoolSettings, Protocol,
};
use vortex_p2p::session::Deadlines;
use vortex_p2p::store::MemoryStore;
use vortex_p2p::wire::PieceKind;

const PIECE: u64 = 1 << 16;

/// An automatic downloader, and what it tells.
struct Auto {
    auto: AutoDownloader,
    downloaders: DownloaderFactory,
    told: Arc<Mutex<Vec<AutoEvent>>>,
}

impl Auto {
    fn new(downloaders: DownloaderFactory, settings: AutoSettings) -> Self {
        let told = Arc::new(Mutex::new(Vec::new()));
        let observer = {
            let told = told.clone();
            Arc::new(move |event| told.lock().unwrap().push(event))
        };
        let auto = AutoDownloader::new(runtime(), downloaders.clone(), settings, Some(observer));
        Self { downloaders: downloaders.with(Arc::new(auto.clone())), auto, told }
    }

    /// Behind a firewall.
    async fn firewalled(closed: &Arc<AtomicBool>, settings: AutoSettings) -> Self {
        let network = Arc::new(Firewalled { network: network(), closed: closed.clone(), lets_out: false });
        let dialer = dialer_on(network, Deadlines::default()).await;
        Self::new(DownloaderFactory::new(&dialer, PoolSettings::default()), settings)
    }

    fn bytes(&self, peer: Peer) -> Vec<(Protocol, u64)> {
        self.auto.shares(peer.address).into_iter().map(|(way, bytes)| (way.protocol, bytes)).collect()
    }

    fn closed(&self, protocol: Protocol) -> Option<ConnectError> {
        self.told.lock().unwrap().iter().find_map(|event| match event {
            AutoEvent::Closed { way, error, .. } if way.protocol == protocol => Some(error.clone()),
            _ => None,
        })
    }

    fn was_late(&self, protocol: Protocol) -> bool {
        let late =
            |event: &AutoEvent| matches!(event, AutoEvent::Late { way, .. } if way.protocol == protocol);
        self.told.lock().unwrap().iter().any(late)
    }
}

#[tokio::test]
async fn quic_is_taken_where_it_is_open() {
    let served = Served::new().await;
    let whole = content(20 * PIECE as usize + 1);
    for kind in PieceKind::ALL {
        let task = task(kind, &whole, PIECE);
        served.insert(task, &whole).await;
        let auto = Auto::new(downloaders().await, AutoSettings::default());
        let peer = auto.auto.join(served.peers.clone()).unwrap();
        assert_eq!(peer.protocol, Protocol::Auto);
        let store = MemoryStore::new(runtime());
        let fetching = transfer(&store, &[peer], task).await;
        let report = Transfer { downloaders: auto.downloaders.clone(), ..fetching }.run().await.unwrap();
        assert_eq!(read(&store, task.key).await, whole);
        assert_eq!((report.peers[0].pieces, report.peers[0].failures), (21, 0));
        assert!(auto.bytes(peer)[0].1 > 0 && auto.closed(Protocol::Quic).is_none(), "{:?}", auto.bytes(peer));
    }
}

#[tokio::test]
async fn where_datagrams_are_dropped_the_file_comes_over_tcp_and_the_reason_is_told() {
    let served = Served::new().await;
    let whole = content(20 * PIECE as usize);
    let task = task(PieceKind::Piece, &whole, PIECE);
    served.insert(task, &whole).await;
    let closed = Arc::new(AtomicBool::new(true));
    let auto = Auto::firewalled(&closed, AutoSettings::default()).await;
    let peer = auto.auto.join([served.quic, served.tcp]).unwrap();
    let store = MemoryStore::new(runtime());
    let fetching = transfer(&store, &[peer], task).await;
    let report = Transfer { downloaders: auto.downloaders.clone(), ..fetching }.run().await.unwrap();
    assert_eq!(read(&store, task.key).await, whole);
    assert_eq!(report.peers[0].failures, 0, "no request had to fail for it");
    assert_eq!(auto.bytes(peer), [(Protocol::Quic, 0), (Protocol::Tcp, whole.len() as u64)]);
    assert!(auto.was_late(Protocol::Quic));
    // And once the connect deadline has passed it is known for sure.
    while auto.closed(Protocol::Quic).is_none() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(matches!(auto.closed(Protocol::Quic), Some(ConnectError::TimedOut(_))));
    assert!(auto.closed(Protocol::Tcp).is_none());
}

#[tokio::test]
async fn a_firewall_that_closes_midway_costs_a_moment() {
    let served = Served::new().await;
    let whole = content(200 * PIECE as usize);
    let task = task(PieceKind::Piece, &whole, PIECE);
    served.insert(task, &whole).await;
    let closed = Arc::new(AtomicBool::new(false));
    // Other ways are not tried before there is a reason to.
    let settings = AutoSettings {
        head_start: Duration::from_secs(5),
        silence: Duration::from_millis(200),
        ..AutoSettings::default()
    };
    let auto = Auto::firewalled(&closed, settings).await;
    let peer = auto.auto.join([served.quic, served.tcp]).unwrap();
    let store = MemoryStore::new(runtime());
    let mut fetching = transfer(&store, &[peer], task).await;
    fetching.downloaders = auto.downloaders.clone();
    fetching.observer = Some(Arc::new(move |event| {
        if let Event::Piece { number: 20, .. } = event {
            closed.store(true, Relaxed);
        }
    }));
    let running = tokio::time::timeout(Duration::from_secs(20), fetching.run());
    running.await.expect("it waits for QUIC").unwrap();
    assert_eq!(read(&store, task.key).await, whole);
    let bytes = auto.bytes(peer);
    assert!(bytes[0].1 > 0 && bytes[1].1 > 100 * PIECE, "{bytes:?}");
    assert!(auto.closed(Protocol::Quic).unwrap().to_string().contains("silent"), "{:?}", auto.told);
}

/// TLS at one end only: over TCP the two do not understand each other, whichever of them speaks it.
#[tokio::test]
async fn a_way_with_tls_at_one_end_only_is_left_for_another() {
    let served = Served::new().await;
    let whole = content(100 * PIECE as usize);
    let task = task(PieceKind::Piece, &whole, PIECE);
    served.insert(task, &whole).await;
    let pinned =
        DownloaderFactory::new(&dialer(&served.trust, Deadlines::default()).await, PoolSettings::default());
    for (downloaders, tcp, told) in
        [(downloaders().await, served.tcp_tls().await, TLS), (pinned, served.tcp, NO_TLS)]
    {
        // Both are tried at once, and TCP is open first.
        let settings = AutoSettings { head_start: Duration::ZERO, ..AutoSettings::default() };
        let auto = Auto::new(downloaders, settings);
        let peer = auto.auto.join([served.quic, tcp]).unwrap();
        let described = describe(&auto.downloaders, peer, task.key).await.unwrap().unwrap();
        assert_eq!(described.division, task.division);
        let store = MemoryStore::new(runtime());
        let fetching = transfer(&store, &[peer], task).await;
        let report = Transfer { downloaders: auto.downloaders.clone(), ..fetching }.run().await.unwrap();
        assert_eq!(read(&store, task.key).await, whole);
        assert_eq!(report.peers[0].failures, 0, "no request had to fail for it");
        assert_eq!(auto.bytes(peer), [(Protocol::Quic, whole.len() as u64), (Protocol::Tcp, 0)]);
        assert_eq!(auto.closed(Protocol::Tcp).unwrap().to_string(), told);
        assert!(auto.closed(Protocol::Quic).is_none());
    }
}

#[tokio::test]
async fn a_peer_that_no_way_leads_to_is_told_with_the_reason_of_each() {
    let served = Served::new().await;
    let whole = content(10);
    let task = task(PieceKind::Piece, &whole, PIECE);
    let (listener, tcp) = super::world::listener().await;
    drop(listener);
    let auto = Auto::firewalled(&Arc::new(AtomicBool::new(true)), AutoSettings::default()).await;
    let peer = auto.auto.join([served.quic, tcp]).unwrap();
    let downloader = auto.downloaders.downloader(Protocol::Auto).unwrap();
    let ask = vortex_p2p::client::Ask::new(task.key.piece(0));
    let error = downloader.request(peer.address, ask).await.unwrap_err().to_string();
    assert!(error.contains(&served.quic.to_string()) && error.contains(&tcp.to_string()), "{error}");
}

#[test]
fn a_peer_without_ways_is_none() {
    let auto = AutoDownloader::new(runtime(), DownloaderFactory::default(), AutoSettings::default(), None);
    assert_eq!(auto.join([]), None);
}
