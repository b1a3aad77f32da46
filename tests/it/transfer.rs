//! Whole transfers over loopback. How pieces are spread is proven beside the plan, on simulated time.

use crate::peers::{Served, content};
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex};
use vortex_p2p::downloader::transfer::{
    Event, PlanSettings, Report, Transfer, TransferError, Verdict, describe, probe,
};
use vortex_p2p::downloader::{Dialer, DownloaderFactory, Peer, PoolSettings, Protocol};
use vortex_p2p::rate::RateLimiter;
use vortex_p2p::server::ServerSettings;
use vortex_p2p::session::Deadlines;
use vortex_p2p::store::{MemoryStore, NewTask, PieceSet, PieceStore, TaskKey};
use vortex_p2p::transport::quic::{QuicEndpoint, QuicSettings};
use vortex_p2p::transport::tls::{ClientTls, Crypto, Trust};
use vortex_p2p::wire::{Algorithm, Digest, Division, PieceKind, PieceLength};

/// What fetches from servers on loopback.
struct Fetching {
    served: Vec<Served>,
    downloaders: DownloaderFactory,
    store: MemoryStore,
}

impl Fetching {
    async fn new(settings: &[ServerSettings]) -> Self {
        let mut served = Vec::new();
        for settings in settings {
            served.push(Served::new(*settings).await);
        }
        let (runtime, network) = (served[0].runtime.clone(), served[0].network.clone());
        let tls = Arc::new(ClientTls::new(&Crypto::new(runtime.clone()), &Trust::Insecure, None).unwrap());
        let quic = QuicSettings::default();
        let bind = "127.0.0.1:0".parse().unwrap();
        let endpoint =
            QuicEndpoint::bind(runtime.clone(), network.clone(), bind, quic.clone(), None).await.unwrap();
        let dialer =
            Dialer::new(runtime.clone(), network, Deadlines::default(), tls).with_quic(endpoint, &quic);
        let downloaders = DownloaderFactory::new(&dialer, PoolSettings::default());
        Self { served, downloaders, store: MemoryStore::new(runtime) }
    }

    fn peers(&self) -> Vec<Peer> {
        let peer = |(at, served): (usize, &Served)| match at % 2 {
            0 => Peer { protocol: Protocol::Quic, address: served.quic },
            _ => Peer { protocol: Protocol::Tcp, address: served.tcp },
        };
        self.served.iter().enumerate().map(peer).collect()
    }

    fn transfer(&self, task: NewTask) -> Transfer {
        Transfer {
            runtime: self.served[0].runtime.clone(),
            downloaders: self.downloaders.clone(),
            store: Arc::new(self.store.clone()),
            task,
            digests: Vec::new(),
            wanted: None,
            peers: self.peers(),
            plan: PlanSettings::default(),
            swarm: true,
            limit: None,
            lenient: false,
            observer: None,
        }
    }

    async fn whole(&self, key: TaskKey) -> Vec<u8> {
        let mut whole = Vec::new();
        for number in self.store.held(key).await.unwrap() {
            let piece = self.store.piece(key.piece(number)).await.unwrap();
            whole.extend_from_slice(&piece.content.read(0, usize::MAX >> 1).await.unwrap());
        }
        whole
    }
}

fn task(key: TaskKey, length: usize, piece_length: u64) -> NewTask {
    let division = Division::new(length as u64, PieceLength::try_from(piece_length).unwrap()).unwrap();
    NewTask { key, division, digest: None }
}

fn shares(report: &Report) -> Vec<u64> {
    report.peers.iter().map(|peer| peer.pieces).collect()
}

#[tokio::test]
async fn a_file_comes_from_all_peers_whatever_their_protocol() {
    let fetching = Fetching::new(&[ServerSettings::default(); 4]).await;
    for kind in PieceKind::ALL {
        let whole = content(100_003);
        let mut key = None;
        for served in &fetching.served {
            key = Some(served.insert(kind, &whole, 1000).await);
        }
        let key = key.unwrap();
        let report = fetching.transfer(task(key, whole.len(), 1000)).run().await.unwrap();
        assert_eq!(fetching.whole(key).await, whole);
        assert_eq!((report.bytes, report.resumed, report.unverified), (100_003, 0, 0));
        assert_eq!(shares(&report).iter().sum::<u64>(), 101);
        // What is here is not fetched again.
        let again = fetching.transfer(task(key, whole.len(), 1000)).run().await.unwrap();
        assert_eq!((again.resumed, shares(&again).iter().sum::<u64>()), (100_003, 0));
    }
}

#[cfg(feature = "grpc")]
#[tokio::test]
async fn a_file_comes_over_each_protocol_alone_and_over_all_at_once() {
    let fetching = Fetching::new(&[ServerSettings::default()]).await;
    let served = &fetching.served[0];
    let peers = [
        Peer { protocol: Protocol::Quic, address: served.quic },
        Peer { protocol: Protocol::Tcp, address: served.tcp },
        Peer { protocol: Protocol::Grpc, address: served.grpc },
    ];
    let alone = peers.iter().map(|peer| vec![*peer]);
    for kind in PieceKind::ALL {
        let whole = content(200_003);
        let key = served.insert(kind, &whole, 1000).await;
        for peers in alone.clone().chain([peers.to_vec()]) {
            let store = MemoryStore::new(served.runtime.clone());
            let mut transfer = fetching.transfer(task(key, whole.len(), 1000));
            (transfer.peers, transfer.store) = (peers, Arc::new(store.clone()));
            let report = transfer.run().await.unwrap();
            assert!(shares(&report).iter().all(|pieces| *pieces > 0), "{report:?}");
            let mut received = Vec::new();
            for number in 0..201 {
                let piece = store.piece(key.piece(number)).await.unwrap();
                received.extend_from_slice(&piece.content.read(0, 1000).await.unwrap());
            }
            assert_eq!(received, whole);
        }
    }
}

#[tokio::test]
async fn a_liar_is_found_out_and_its_pieces_come_from_elsewhere() {
    //= VTX-SEC-008 test
    let fetching = Fetching::new(&[ServerSettings::default(); 2]).await;
    let (whole, false_content) = (content(50_000), content(50_007).slice(7..));
    let key = fetching.served[0].insert(PieceKind::Piece, &whole, 1000).await;
    // The same name, other bytes: with a digest of its own that fits them.
    let forged = NewTask { digest: None, ..task(key, whole.len(), 1000) };
    fetching.served[1].store.insert(forged, Algorithm::Crc32, &false_content).await.unwrap();
    let digests: Vec<_> = whole.chunks(1000).map(|piece| Digest::of(Algorithm::Crc32, piece)).collect();
    let mut transfer = fetching.transfer(task(key, whole.len(), 1000));
    transfer.digests = digests;
    let report = transfer.run().await.unwrap();
    assert_eq!(fetching.whole(key).await, whole);
    assert_eq!(shares(&report), [50, 0]);
    assert!(matches!(report.peers[1].last, Some((Verdict::Lied, _))), "{:?}", report.peers[1]);
}

#[tokio::test]
async fn nobody_has_it() {
    let fetching = Fetching::new(&[ServerSettings::default(); 2]).await;
    let key = TaskKey { kind: PieceKind::Cache, id: vortex_p2p::wire::TaskId::from_sha256([3; 32]) };
    let error = fetching.transfer(task(key, 5000, 1000)).run().await.unwrap_err();
    let TransferError::Stuck { peers, left: 5, .. } = error else { panic!("{error}") };
    assert!(peers.iter().all(|peer| matches!(peer.last, Some((Verdict::Lacks, _)))), "{peers:?}");
}

#[tokio::test]
async fn wanted_pieces_alone_are_fetched_and_told() {
    let fetching = Fetching::new(&[ServerSettings::default()]).await;
    let whole = content(10_000);
    let key = fetching.served[0].insert(PieceKind::Piece, &whole, 1000).await;
    let told = Arc::new(Mutex::new(Vec::new()));
    let mut transfer = fetching.transfer(task(key, whole.len(), 1000));
    let wanted: PieceSet = [2, 7].into_iter().collect();
    transfer.wanted = Some(wanted.clone());
    transfer.limit = NonZeroU64::new(1 << 30).map(|rate| RateLimiter::new(transfer.runtime.clone(), rate));
    transfer.observer = Some({
        let told = told.clone();
        Arc::new(move |event| told.lock().unwrap().push(event))
    });
    transfer.run().await.unwrap();
    assert_eq!(fetching.store.held(key).await.unwrap(), wanted);
    let told = told.lock().unwrap();
    assert_eq!(told[0], Event::Start { pieces: 2, bytes: 2000, resumed: 0 });
    assert_eq!(told.iter().filter(|event| matches!(event, Event::Piece { .. })).count(), 2);
}

#[tokio::test]
async fn what_a_task_is_like_is_asked_or_found_out() {
    let settings = [
        ServerSettings::default(),
        ServerSettings::default(),
        // Like deployed peers, which can't be asked.
        ServerSettings { extensions: false, ..ServerSettings::default() },
        ServerSettings { extensions: false, ..ServerSettings::default() },
    ];
    let fetching = Fetching::new(&settings).await;
    for length in [0usize, 1, 999, 1000, 1001, 17_345] {
        let whole = content(length);
        for (at, peer) in fetching.peers().into_iter().enumerate() {
            let key = fetching.served[at].insert(PieceKind::Persistent, &whole, 1000).await;
            let said = describe(&fetching.downloaders, peer, key).await.unwrap();
            assert_eq!(said, (at < 2).then_some(task(key, length, 1000)));
            let found = probe(&fetching.downloaders, peer, key, None, None).await.unwrap();
            assert_eq!(found.division.length(), length as u64);
            let pieces = length.div_ceil(1000).max(1) as u64;
            let found_by_count = probe(&fetching.downloaders, peer, key, Some(pieces), None).await.unwrap();
            assert_eq!((found.division, pieces), (found_by_count.division, found.division.pieces()));
        }
    }
}
