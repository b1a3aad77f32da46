//! A transfer among peers that are dead, silent, lying, or break off: raw servers, over loopback.

use super::world::{Served, answer, content, downloaders, listener, runtime, task};
use crate::clock::Stopped;
use bytes::Bytes;
use std::collections::BTreeSet;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use vortex_p2p::client::ExtensionReply;
use vortex_p2p::downloader::Peer;
use vortex_p2p::downloader::transfer::{
    Event, Observer, PlanSettings, Report, Transfer, TransferError, Verdict,
};
use vortex_p2p::rate::RateLimiter;
use vortex_p2p::server::ServerSettings;
use vortex_p2p::store::{MemoryStore, NewTask, PieceStore, TaskKey};
use vortex_p2p::wire::extension::ExtensionRequest;
use vortex_p2p::wire::{Algorithm, Digest, Download, PieceKind};

const PIECE: u64 = 1 << 16;

pub(super) async fn transfer(store: &MemoryStore, peers: &[Peer], task: NewTask) -> Transfer {
    Transfer {
        runtime: runtime(),
        downloaders: downloaders().await,
        store: Arc::new(store.clone()),
        task,
        digests: Vec::new(),
        wanted: None,
        peers: peers.to_vec(),
        plan: PlanSettings::default(),
        swarm: false,
        limit: None,
        lenient: false,
        observer: None,
    }
}

fn store() -> MemoryStore {
    MemoryStore::new(runtime())
}

pub(super) async fn read(store: &MemoryStore, task: TaskKey) -> Vec<u8> {
    let mut whole = Vec::new();
    let pieces = store.task(task).await.unwrap().unwrap().division.pieces();
    for number in 0..u32::try_from(pieces).unwrap() {
        let piece = store.piece(task.piece(number)).await.unwrap();
        whole.extend_from_slice(&piece.content.read(0, usize::MAX).await.unwrap());
    }
    whole
}

/// What a raw server does with a request, by its content and how many requests came before: the bytes that it writes, and
/// what follows them.
trait Script: Fn(&Bytes, Download, u32) -> (Vec<u8>, Then) + Clone + Send + 'static {}
impl<F: Fn(&Bytes, Download, u32) -> (Vec<u8>, Then) + Clone + Send + 'static> Script for F {}

/// What follows an answer.
enum Then {
    Serve,
    Silence,
    End,
}

/// A raw server over TCP that answers for `content` by `script`.
async fn scripted(content: &Bytes, script: impl Script) -> Peer {
    let (mut listener, peer) = listener().await;
    let content = content.clone();
    let count = Arc::new(AtomicU32::new(0));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (content, count, script) = (content.clone(), count.clone(), script.clone());
            tokio::spawn(async move {
                let mut request = [0; Download::PACKET_LEN];
                while stream.read_exact(&mut request).await.is_ok() {
                    let packet = vortex_p2p::wire::Packet::decode_exact(&request).unwrap();
                    let vortex_p2p::wire::Message::Download(download) = packet.message else { panic!() };
                    let (bytes, then) = script(&content, download, count.fetch_add(1, Relaxed));
                    if stream.write_all(&bytes).await.is_err() {
                        return;
                    }
                    match then {
                        Then::Serve => {}
                        Then::Silence => std::future::pending().await,
                        Then::End => return,
                    }
                }
            });
        }
    });
    peer
}

fn part(content: &Bytes, number: u32) -> Vec<u8> {
    let from = number as usize * PIECE as usize;
    content[from..content.len().min(from + PIECE as usize)].to_vec()
}

/// Other bytes than it announces.
fn lie(content: &Bytes, download: Download, _: u32) -> (Vec<u8>, Then) {
    let mut bytes = answer(download.kind, download.number, &part(content, download.number));
    *bytes.last_mut().unwrap() ^= 1;
    (bytes, Then::Serve)
}

/// Other bytes, with their digest.
fn forge(content: &Bytes, download: Download, _: u32) -> (Vec<u8>, Then) {
    let mut part = part(content, download.number);
    part[0] ^= 1;
    (answer(download.kind, download.number, &part), Then::Serve)
}

/// Half of what it announces, and then nothing.
fn fall_silent(content: &Bytes, download: Download, _: u32) -> (Vec<u8>, Then) {
    let mut bytes = answer(download.kind, download.number, &part(content, download.number));
    bytes.truncate(bytes.len() - PIECE as usize / 4);
    (bytes, Then::Silence)
}

async fn dead() -> Peer {
    let (listener, peer) = listener().await;
    drop(listener);
    peer
}

/// One wrong answer, and then only right ones.
fn slip_once(content: &Bytes, download: Download, before: u32) -> (Vec<u8>, Then) {
    match before {
        0 => lie(content, download, before),
        _ => (answer(download.kind, download.number, &part(content, download.number)), Then::Serve),
    }
}

#[tokio::test]
async fn the_only_peer_may_slip_once() {
    let whole = content(20 * PIECE as usize);
    let task = task(PieceKind::Piece, &whole, PIECE);
    let (store, peer) = (store(), scripted(&whole, slip_once).await);
    transfer(&store, &[peer], task).await.run().await.unwrap();
    assert_eq!(read(&store, task.key).await, whole);
}

#[tokio::test]
async fn the_only_peer_may_lose_all_its_connections_at_once() {
    let whole = content(20 * PIECE as usize);
    let task = task(PieceKind::Piece, &whole, PIECE);
    // As in a restart: for a moment every connection ends without an answer.
    let first = Arc::new(OnceLock::new());
    let restarting = move |content: &Bytes, download: Download, _: u32| {
        let part = part(content, download.number);
        match first.get_or_init(Instant::now).elapsed() < Duration::from_millis(100) {
            true => (Vec::new(), Then::End),
            false => (answer(download.kind, download.number, &part), Then::Serve),
        }
    };
    let (store, peer) = (store(), scripted(&whole, restarting).await);
    let report = transfer(&store, &[peer], task).await.run().await.unwrap();
    assert!(report.peers[0].failures > 0, "{report:?}");
    assert_eq!(read(&store, task.key).await, whole);
}

#[tokio::test]
async fn the_last_pieces_are_not_left_to_a_silent_peer() {
    let served = Served::new().await;
    let whole = content(4 * PIECE as usize);
    let task = task(PieceKind::Piece, &whole, PIECE);
    served.insert(task, &whole).await;
    let silent = scripted(&whole, fall_silent).await;
    let store = store();
    let fetching = transfer(&store, &[silent, served.quic], task).await.run();
    tokio::time::timeout(Duration::from_secs(60), fetching).await.expect("it hangs").unwrap();
    assert_eq!(read(&store, task.key).await, whole);
}

#[tokio::test]
async fn a_file_arrives_whole_among_peers_that_die_lie_and_fall_silent() {
    let served = Served::new().await;
    let whole = content(60 * PIECE as usize + 5);
    let task = task(PieceKind::Piece, &whole, PIECE);
    served.insert(task, &whole).await;
    let (liar, silent) = (scripted(&whole, lie).await, scripted(&whole, fall_silent).await);
    let peers = [dead().await, liar, silent, served.quic];
    let store = store();
    let mut transfer = transfer(&store, &peers, task).await;
    // Nobody is given up for silence: the last pieces have to come from elsewhere all the same.
    transfer.plan.stall = Duration::from_secs(3600);
    let Report { peers, .. } = transfer.run().await.unwrap();
    assert_eq!(read(&store, task.key).await, whole);
    assert_eq!(peers.iter().map(|peer| peer.pieces).collect::<Vec<_>>(), [0, 0, 0, 61]);
    assert!(matches!(peers[1].last, Some((Verdict::Lied, _))), "{:?}", peers[1]);
    assert!(matches!(peers[0].last, Some((Verdict::Failed, _))), "{:?}", peers[0]);
}

#[tokio::test]
async fn of_four_peers_one_slow_one_dying_one_lying_the_report_says_who_gave_what() {
    let whole = content(100 * PIECE as usize + 5);
    let task = task(PieceKind::Piece, &whole, PIECE);
    let honest = Served::new().await;
    let mut settings = ServerSettings::default();
    settings.limits.bandwidth = NonZeroU64::new(1 << 20);
    let slow = Served::with(settings).await;
    for served in [&honest, &slow] {
        served.insert(task, &whole).await;
    }
    // Three right answers, and after them only ends.
    let dying = scripted(&whole, |content: &Bytes, download: Download, before: u32| match before {
        0..3 => slip_once(content, download, 1),
        _ => (Vec::new(), Then::End),
    });
    let peers = [honest.quic, slow.tcp, dying.await, scripted(&whole, lie).await];
    let store = store();
    let Report { bytes, peers, .. } = transfer(&store, &peers, task).await.run().await.unwrap();
    assert_eq!(read(&store, task.key).await, whole);
    let [honest, slow, dying, liar] = &peers[..] else { panic!("{peers:?}") };
    assert_eq!(peers.iter().map(|peer| peer.bytes).sum::<u64>(), bytes);
    assert_eq!(peers.iter().map(|peer| peer.pieces).sum::<u64>(), 101);
    assert!(honest.pieces > slow.pieces && honest.failures == 0, "{peers:?}");
    assert!(dying.pieces <= 3 && matches!(dying.last, Some((Verdict::Failed, _))), "{dying:?}");
    assert!(liar.pieces == 0 && matches!(liar.last, Some((Verdict::Lied, _))), "{liar:?}");
}

#[tokio::test]
async fn a_silent_peer_is_given_up_and_its_pieces_are_free() {
    let served = Served::new().await;
    let whole = content(4 * PIECE as usize);
    let task = task(PieceKind::Piece, &whole, PIECE);
    served.insert(task, &whole).await;
    let (store, silent) = (store(), scripted(&whole, fall_silent).await);
    let mut alone = transfer(&store, &[silent], task).await;
    alone.plan.stall = Duration::from_millis(50);
    alone.plan.pause = Duration::from_millis(5);
    let TransferError::Stuck { piece: 0, left: 4, peers } = alone.run().await.unwrap_err() else {
        panic!("a silent peer gives nothing")
    };
    assert!(matches!(peers[0].last, Some((Verdict::TimedOut, _))) && peers[0].gone, "{peers:?}");
    transfer(&store, &[served.tcp], task).await.run().await.unwrap();
    assert_eq!(read(&store, task.key).await, whole);
}

#[tokio::test]
async fn a_forger_is_found_out_by_known_digests() {
    //= VTX-SEC-008 test
    let served = Served::new().await;
    let whole = content(9 * PIECE as usize);
    let task = task(PieceKind::Piece, &whole, PIECE);
    served.insert(task, &whole).await;
    let forger = scripted(&whole, forge).await;
    let digests: Vec<_> = (0..9).map(|number| Digest::of(Algorithm::Sha256, &part(&whole, number))).collect();
    let store = store();
    let mut both = transfer(&store, &[forger, served.quic], task).await;
    both.digests = digests.clone();
    both.run().await.unwrap();
    assert_eq!(read(&store, task.key).await, whole);
    let mut alone = transfer(&MemoryStore::new(runtime()), &[forger], task).await;
    alone.digests = digests;
    let TransferError::Stuck { peers, left: 9, .. } = alone.run().await.unwrap_err() else {
        panic!("a forger gives nothing")
    };
    assert!(matches!(peers[0].last, Some((Verdict::Lied, _))), "{peers:?}");
}

#[tokio::test]
async fn what_was_verified_is_not_fetched_again() {
    let served = Served::new().await;
    let whole = content(50 * PIECE as usize + 1);
    let task = task(PieceKind::Piece, &whole, PIECE);
    served.insert(task, &whole).await;
    let store = store();
    let (mut before, mut rounds) = (BTreeSet::new(), 0);
    let report = loop {
        rounds += 1;
        // Interrupted, by being dropped, as soon as a few more pieces are there.
        let stop = Arc::new(tokio::sync::Notify::new());
        let count = Arc::new(Mutex::new(BTreeSet::new()));
        let observer: Observer = {
            let (stop, count) = (stop.clone(), count.clone());
            Arc::new(move |event| {
                if let Event::Piece { number, .. } = event {
                    let mut count = count.lock().unwrap();
                    assert!(count.insert(number), "piece {number} twice");
                    if count.len() >= 7 {
                        stop.notify_one();
                    }
                }
            })
        };
        let mut fetching = transfer(&store, &[served.quic, served.tcp], task).await;
        fetching.observer = Some(observer);
        let done = tokio::select! {
            biased;
            () = stop.notified() => None,
            report = fetching.run() => Some(report.unwrap()),
        };
        let count = count.lock().unwrap().clone();
        assert!(before.is_disjoint(&count), "fetched again: {:?}", before.intersection(&count));
        before.extend(count);
        // Pieces may have become durable whose event was not seen any more.
        before.extend(store.held(task.key).await.unwrap());
        if let Some(report) = done {
            break report;
        }
    };
    assert!(rounds > 3, "{rounds}");
    let fetched: u64 = report.peers.iter().map(|peer| peer.bytes).sum();
    assert_eq!(report.resumed + fetched, whole.len() as u64);
    assert_eq!(read(&store, task.key).await, whole);
}

#[tokio::test]
async fn who_is_slow_by_our_own_limit_is_not_silent() {
    let served = Served::new().await;
    let whole = content(8 * PIECE as usize);
    let task = task(PieceKind::Piece, &whole, PIECE);
    served.insert(task, &whole).await;
    let store = store();
    let mut limited = transfer(&store, &[served.quic], task).await;
    limited.plan.stall = Duration::from_millis(150);
    limited.limit = Some(RateLimiter::new(runtime(), NonZeroU64::new(1 << 20).unwrap()));
    let report = limited.run().await.unwrap();
    assert_eq!(report.peers[0].failures, 0, "{report:?}");
    assert_eq!(read(&store, task.key).await, whole);
}

#[tokio::test]
async fn a_piece_that_was_said_to_be_there_and_is_not_comes_from_elsewhere() {
    //= VTX-EXT-018 test
    let served = Served::new().await;
    let whole = content(2 * PIECE as usize);
    let task = task(PieceKind::Piece, &whole, PIECE);
    served.insert(task, &whole).await;
    let boaster = Served::new().await;
    boaster.insert(task, &whole).await;
    let downloaders = downloaders().await;
    let downloader = downloaders.downloader(boaster.tcp.protocol).unwrap();
    let (kind, task_id) = (task.key.kind, task.key.id);
    let available = downloader
        .extension(
            boaster.tcp.address,
            ExtensionRequest::Availability { kind, task_id, first: 0, hold: None },
        )
        .await
        .unwrap();
    let Some(ExtensionReply::Availability(availability)) = available else { panic!("{available:?}") };
    assert_eq!(availability.held, [true, true]);
    // It holds them no longer.
    boaster.store.delete(task.key).await.unwrap();
    let store = store();
    let mut both = transfer(&store, &[boaster.tcp, served.tcp], task).await;
    both.downloaders = downloaders;
    let report = both.run().await.unwrap();
    assert_eq!(read(&store, task.key).await, whole);
    assert!(matches!(report.peers[0].last, Some((Verdict::Lacks, _))), "{:?}", report.peers[0]);
    assert_eq!(report.peers[1].pieces, 2);
}

#[tokio::test]
async fn the_cost_of_a_piece_is_in_whole_seconds_rounded_down() {
    //= VTX-CNT-015 test
    let whole = content(PIECE as usize);
    let task = task(PieceKind::Piece, &whole, PIECE);
    for (milliseconds, seconds) in [(0, 0), (999, 0), (1000, 1), (2999, 2)] {
        let clock = Stopped::new();
        let passing = clock.clone();
        let peer = scripted(&whole, move |content, download, _| {
            passing.at(Duration::from_millis(milliseconds));
            (answer(download.kind, download.number, content), Then::Serve)
        });
        let store = store();
        let mut timed = transfer(&store, &[peer.await], task).await;
        timed.runtime = clock;
        timed.run().await.unwrap();
        let stored = store.piece(task.key.piece(0)).await.unwrap();
        let digest = stored.provenance.digest.to_text();
        assert_eq!(stored.metadata(&digest).cost, seconds, "{milliseconds} ms");
    }
}
