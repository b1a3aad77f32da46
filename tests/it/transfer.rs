//! How pieces are spread over peers, on simulated time; and whole transfers over loopback.

use crate::peers::{Served, content};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use vortex_p2p::downloader::transfer::{
    Event, Fault, Next, Plan, PlanSettings, Report, Transfer, TransferError, Verdict, describe, probe,
};
use vortex_p2p::downloader::{Dialer, DownloaderFactory, Peer, PoolSettings, Protocol};
use vortex_p2p::rate::RateLimiter;
use vortex_p2p::server::ServerSettings;
use vortex_p2p::session::Deadlines;
use vortex_p2p::store::{MemoryStore, NewTask, PieceSet, PieceStore, TaskKey};
use vortex_p2p::transport::quic::{QuicEndpoint, QuicSettings};
use vortex_p2p::transport::tls::{ClientTls, Crypto, Trust};
use vortex_p2p::wire::{Algorithm, Digest, Division, PieceKind, PieceLength};

/// A peer of the simulated kind: how fast it is, and what goes wrong.
#[derive(Debug, Clone, Copy)]
enum Nature {
    Honest {
        bytes_per_ms: u64,
    },
    Dead,
    Liar,
    Lacks,
    /// Fails each so many requests.
    Flaky {
        each: u32,
        bytes_per_ms: u64,
    },
}

fn natures() -> impl Strategy<Value = Nature> {
    prop_oneof![
        (1u64..1000).prop_map(|bytes_per_ms| Nature::Honest { bytes_per_ms }),
        Just(Nature::Dead),
        Just(Nature::Liar),
        Just(Nature::Lacks),
        (2u32..5, 1u64..1000).prop_map(|(each, bytes_per_ms)| Nature::Flaky { each, bytes_per_ms }),
    ]
}

const PIECE: u64 = 10_000;

/// Plays a transfer through; returns what each peer delivered, or the piece that nobody gave.
fn play(plan: &mut Plan, peers: &[Nature], pieces: u32) -> Result<Vec<u32>, u32> {
    let begin = Instant::now();
    let mut now = begin;
    let mut under_way: BTreeMap<u32, (usize, Instant, Option<Fault>)> = BTreeMap::new();
    let (mut asked, mut done) = (vec![0u32; peers.len()], BTreeMap::new());
    let mut given = vec![0u32; peers.len()];
    for _ in 0..200_000 {
        match plan.next(now) {
            Next::Ask { peer, piece, instead_of } => {
                asked[peer] += 1;
                let took = |rate: u64| Duration::from_millis(PIECE.div_ceil(rate));
                let (ends, fault) = match peers[peer] {
                    Nature::Honest { bytes_per_ms } => (took(bytes_per_ms), None),
                    Nature::Dead => (Duration::from_secs(2), Some(Fault::Failed)),
                    Nature::Liar => (Duration::from_millis(20), Some(Fault::Lied)),
                    Nature::Lacks => (Duration::from_millis(5), Some(Fault::Lacks)),
                    Nature::Flaky { each, bytes_per_ms } => {
                        (took(bytes_per_ms), asked[peer].is_multiple_of(each).then_some(Fault::Failed))
                    }
                };
                let before = under_way.insert(piece, (peer, now + ends, fault));
                assert_eq!(before.map(|(peer, ..)| peer), instead_of, "a piece is under way once");
                assert!(!done.contains_key(&piece), "a piece that is here is not asked for");
            }
            Next::Wait(until) => {
                let first = under_way.iter().min_by_key(|(_, (_, ends, _))| *ends);
                let Some((&piece, &(peer, ends, fault))) = first else {
                    now = until.expect("something to wait for");
                    continue;
                };
                if until.is_some_and(|until| until < ends) {
                    now = until.unwrap().max(now);
                    continue;
                }
                now = ends;
                under_way.remove(&piece);
                match fault {
                    Some(fault) => {
                        plan.failed(piece, fault, now);
                    }
                    None => {
                        plan.progress(piece, PIECE);
                        plan.completed(piece, now);
                        given[peer] += 1;
                        assert!(done.insert(piece, peer).is_none(), "once");
                    }
                }
            }
            Next::Done => {
                assert_eq!(done.len(), pieces as usize);
                return Ok(given);
            }
            Next::Stuck(piece) => return Err(piece),
        }
    }
    panic!("no end after {:?}", now - begin);
}

proptest! {
    #[test]
    fn every_piece_comes_once_as_long_as_one_honest_peer_lives(
        mut peers in proptest::collection::vec(natures(), 0..6),
        at in 0usize..6,
        rate in 1u64..1000,
        pieces in 1u32..60,
        concurrency in 1usize..20,
    ) {
        peers.insert(at.min(peers.len()), Nature::Honest { bytes_per_ms: rate });
        let settings = PlanSettings { concurrency, ..PlanSettings::default() };
        let mut plan = Plan::new(settings, peers.len(), (0..pieces).collect(), PIECE, pieces / 2);
        prop_assert!(play(&mut plan, &peers, pieces).is_ok());
    }

    #[test]
    fn without_anybody_who_has_it_the_transfer_ends(
        peers in proptest::collection::vec(prop_oneof![Just(Nature::Dead), Just(Nature::Liar), Just(Nature::Lacks)], 1..6),
        pieces in 1u32..30,
    ) {
        let mut plan = Plan::new(PlanSettings::default(), peers.len(), (0..pieces).collect(), PIECE, 0);
        prop_assert!(play(&mut plan, &peers, pieces).is_err());
    }
}

#[test]
fn a_peer_gets_as_much_as_it_delivers() {
    let peers = [Nature::Honest { bytes_per_ms: 900 }, Nature::Honest { bytes_per_ms: 100 }];
    let mut plan = Plan::new(PlanSettings::default(), 2, (0..500).collect(), PIECE, 0);
    let given = play(&mut plan, &peers, 500).unwrap();
    assert!(given[0] > 4 * given[1], "{given:?}");
}

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
            scattered: true,
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
