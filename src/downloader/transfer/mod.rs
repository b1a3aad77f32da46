//! Many peers, one file: the missing pieces of a task, from peers into a store.
//!
//! [`Plan`] decides, without I/O; here its decisions are carried out. Each request is a task of its own and streams its
//! piece into the store while it is verified, so memory does not grow with pieces. Dropped, a transfer gives everything
//! up that is under way, and loses nothing that is in the store: the next one goes on from there.

mod describe;
mod event;
mod plan;

pub use describe::{DescribeError, describe, probe};
pub use event::{Event, PeerReport, Report, TransferError, Verdict};
pub use plan::{Fault, Next, PeerIndex, Plan, PlanSettings};

use super::{ConnectError, DownloadError, Downloader, DownloaderFactory, Peer};
use crate::client::{Ask, Failure, Rejection, RequestError};
use crate::rate::RateLimiter;
use crate::runtime::SharedRuntime;
use crate::store::{NewTask, ParentId, PieceSet, Provenance, SharedStore, StoreError};
use crate::wire::{Algorithm, Digest, Download, ErrorCode, Hasher};
use futures_util::future::{AbortHandle, Abortable, Either, select};
use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Whoever watches a transfer.
pub type Observer = Arc<dyn Fn(Event) + Send + Sync>;

/// What to get, from whom, and into which store.
pub struct Transfer {
    /// The runtime that everything runs on.
    pub runtime: SharedRuntime,
    /// Asks the peers, each over its protocol.
    pub downloaders: DownloaderFactory,
    /// Where the pieces go.
    pub store: SharedStore,
    /// The task: its name and division.
    pub task: NewTask,
    /// The digests of the pieces, where they are known from a source other than the peers; otherwise none at all.
    pub digests: Vec<Digest>,
    /// Which pieces to get; all of them where none are named.
    pub wanted: Option<PieceSet>,
    /// Whom to ask.
    pub peers: Vec<Peer>,
    /// How the pieces are spread over the peers.
    pub plan: PlanSettings,
    /// Whether to begin at a piece drawn at random: many that fetch the same file at once then soon have something for
    /// each other.
    pub scattered: bool,
    /// How fast to receive at most.
    pub limit: Option<RateLimiter>,
    /// Whether pieces may be taken whose digest can't be checked.
    pub lenient: bool,
    /// Who watches.
    pub observer: Option<Observer>,
}

impl std::fmt::Debug for Transfer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transfer")
            .field("task", &self.task)
            .field("peers", &self.peers)
            .finish_non_exhaustive()
    }
}

/// What a request tells while it runs.
enum Told {
    Bytes { piece: u32, flight: u64, count: u64 },
    Ended { piece: u32, flight: u64, outcome: Result<Checked, FetchError> },
}

/// Whether the content of a piece could be checked against a digest of somebody else's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Checked {
    Verified,
    /// For a lenient transfer only.
    Unverified,
}

/// Why a request did not bring its piece.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error(transparent)]
    Download(#[from] DownloadError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A request under way.
struct Flight {
    id: u64,
    peer: PeerIndex,
    since: Instant,
    received: u64,
    abort: AbortHandle,
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.abort.abort();
    }
}

impl Transfer {
    /// Gets every piece that is wanted and not in the store yet.
    ///
    /// # Errors
    /// [`TransferError`]. What has arrived by then stays in the store.
    pub async fn run(self) -> Result<Report, TransferError> {
        if self.peers.is_empty() {
            return Err(TransferError::NoPeers);
        }
        let begun = self.runtime.now();
        let task = self.store.create(self.task).await?;
        let held = self.store.held(task.key).await?;
        let all =
            || (0..=u32::MAX).take(usize::try_from(task.division.pieces()).unwrap_or(usize::MAX)).collect();
        let wanted = self.wanted.clone().unwrap_or_else(all);
        let missing = &wanted - &held;
        let bytes_of = |pieces: &PieceSet| -> u64 {
            pieces
                .iter()
                .filter_map(|number| task.division.piece(number))
                .map(|span| u64::from(span.length))
                .sum()
        };
        let mut report = Report {
            bytes: bytes_of(&wanted),
            resumed: bytes_of(&(&wanted & &held)),
            elapsed: Duration::ZERO,
            unverified: 0,
            peers: self.peers.iter().map(|peer| PeerReport::new(*peer)).collect(),
        };
        self.tell(Event::Start { pieces: wanted.len(), bytes: report.bytes, resumed: report.resumed });
        let piece_length = self.task.division.piece_length().into();
        let mut plan = Plan::new(
            self.plan,
            self.peers.len(),
            missing,
            piece_length,
            if self.scattered { self.draw() } else { 0 },
        );
        Running {
            transfer: &self,
            plan: &mut plan,
            report: &mut report,
            flights: BTreeMap::new(),
            last_id: 0,
        }
        .run()
        .await?;
        report.elapsed = self.runtime.now().saturating_duration_since(begun);
        Ok(report)
    }

    fn draw(&self) -> u32 {
        let mut bytes = [0; 4];
        self.runtime.fill_random(&mut bytes);
        let pieces = self.task.division.pieces();
        u32::try_from(u64::from(u32::from_be_bytes(bytes)) % pieces).unwrap_or_default()
    }

    fn tell(&self, event: Event) {
        if let Some(observer) = &self.observer {
            observer(event);
        }
    }
}

struct Running<'a> {
    transfer: &'a Transfer,
    plan: &'a mut Plan,
    report: &'a mut Report,
    flights: BTreeMap<u32, Flight>,
    last_id: u64,
}

impl Running<'_> {
    async fn run(&mut self) -> Result<(), TransferError> {
        let runtime = self.transfer.runtime.clone();
        let (tell, mut told) = mpsc::unbounded_channel();
        loop {
            let until = match self.plan.next(runtime.now()) {
                Next::Ask { peer, piece, instead_of } => {
                    if let Some(slow) = instead_of {
                        self.note(slow, piece, "another peer is much faster", |report| report.failures += 1);
                    }
                    self.begin(peer, piece, &tell)?;
                    continue;
                }
                Next::Wait(until) => until,
                Next::Done => return Ok(()),
                Next::Stuck(piece) => return Err(self.stuck(piece)),
            };
            let message = match until {
                None => told.recv().await,
                Some(until) => match select(pin!(told.recv()), pin!(runtime.sleep_until(until))).await {
                    Either::Left((message, _)) => message,
                    Either::Right(_) => continue,
                },
            };
            // The sender is here, so there is always another message.
            let Some(message) = message else { return Err(TransferError::NoPeers) };
            self.take(message)?;
        }
    }

    fn begin(
        &mut self,
        peer: PeerIndex,
        piece: u32,
        tell: &mpsc::UnboundedSender<Told>,
    ) -> Result<(), TransferError> {
        let Transfer { runtime, downloaders, store, task, digests, limit, lenient, .. } = self.transfer;
        let Some(address) = self.transfer.peers.get(peer).copied() else {
            return Err(TransferError::NoPeers);
        };
        self.last_id += 1;
        let id = self.last_id;
        let (abort, registration) = AbortHandle::new_pair();
        // Dropping the one that was there gives it up.
        self.flights.insert(piece, Flight { id, peer, since: runtime.now(), received: 0, abort });
        let download = task.key.piece(piece);
        let fetch = Fetch {
            runtime: runtime.clone(),
            downloader: downloaders.downloader(address.protocol).cloned(),
            store: store.clone(),
            peer: address,
            ask: Ask {
                download,
                length: task.division.piece(piece).map(|span| span.length),
                digest: digests.get(piece as usize).copied(),
                lenient: *lenient,
            },
            limit: limit.clone(),
            flight: id,
            tell: tell.clone(),
        };
        let tell = tell.clone();
        let fetch = async move {
            if let Ok(outcome) = Abortable::new(fetch.run(), registration).await {
                let _ = tell.send(Told::Ended { piece, flight: id, outcome });
            }
        };
        runtime.spawn(Box::pin(fetch));
        Ok(())
    }

    fn take(&mut self, message: Told) -> Result<(), TransferError> {
        let (piece, id) = match &message {
            Told::Bytes { piece, flight, .. } | Told::Ended { piece, flight, .. } => (*piece, *flight),
        };
        // What a request that was given up still said counts no more.
        let Some(flight) = self.flights.get_mut(&piece).filter(|flight| flight.id == id) else {
            return Ok(());
        };
        match message {
            Told::Bytes { count, .. } => {
                flight.received += count;
                let peer = flight.peer;
                self.plan.progress(piece, count);
                self.transfer.tell(Event::Bytes { peer, count });
                Ok(())
            }
            Told::Ended { outcome, .. } => {
                let Some(flight) = self.flights.remove(&piece) else { return Ok(()) };
                self.ended(piece, &flight, outcome)
            }
        }
    }

    fn ended(
        &mut self,
        piece: u32,
        flight: &Flight,
        outcome: Result<Checked, FetchError>,
    ) -> Result<(), TransferError> {
        let now = self.transfer.runtime.now();
        //= VTX-DIG-013
        self.report.unverified += u64::from(matches!(outcome, Ok(Checked::Unverified)));
        let error = match outcome {
            // Another writer, of another transfer into the same store, was first.
            Ok(_) | Err(FetchError::Store(StoreError::Held { .. })) => {
                self.plan.completed(piece, now);
                if let Some(report) = self.report.peers.get_mut(flight.peer) {
                    report.pieces += 1;
                    report.bytes += flight.received;
                }
                let elapsed = now.saturating_duration_since(flight.since);
                self.transfer.tell(Event::Piece {
                    number: piece,
                    peer: flight.peer,
                    bytes: flight.received,
                    elapsed,
                });
                return Ok(());
            }
            Err(FetchError::Store(StoreError::Busy { .. })) => {
                // The request that was given up has not let go of its writer yet.
                self.plan.failed(piece, Fault::Failed, now);
                return Ok(());
            }
            Err(FetchError::Store(error)) => return Err(error.into()),
            Err(FetchError::Download(error)) => error,
        };
        let fault = fault(&error);
        let gone = self.plan.failed(piece, fault, now);
        let reason = error.to_string();
        let code = match fault {
            Fault::Lied => event::Verdict::Lied,
            Fault::Lacks => event::Verdict::Lacks,
            Fault::Refused => event::Verdict::Refused,
            Fault::Failed => event::Verdict::of(&error),
        };
        self.note(flight.peer, piece, &reason, |report| {
            report.failures += 1;
            report.last = Some((code, reason.clone()));
            report.gone |= gone;
        });
        if gone {
            self.transfer.tell(Event::PeerGone { peer: flight.peer, reason });
        }
        Ok(())
    }

    fn note(&mut self, peer: PeerIndex, piece: u32, reason: &str, change: impl FnOnce(&mut PeerReport)) {
        if let Some(report) = self.report.peers.get_mut(peer) {
            change(report);
        }
        self.transfer.tell(Event::Retry { number: piece, peer, reason: reason.to_owned() });
    }

    fn stuck(&self, piece: u32) -> TransferError {
        TransferError::Stuck { piece, left: self.plan.waiting(), peers: self.report.peers.clone() }
    }
}

/// One request and where its piece goes.
struct Fetch {
    runtime: SharedRuntime,
    downloader: Result<Arc<dyn Downloader>, ConnectError>,
    store: SharedStore,
    peer: Peer,
    ask: Ask,
    limit: Option<RateLimiter>,
    flight: u64,
    tell: mpsc::UnboundedSender<Told>,
}

impl Fetch {
    async fn run(self) -> Result<Checked, FetchError> {
        let begun = self.runtime.now();
        let downloader = self.downloader.clone().map_err(DownloadError::from)?;
        let mut answer = downloader.request(self.peer.address, self.ask).await?;
        let Download { number: piece, .. } = self.ask.download;
        let mut writer = self.store.writer(self.ask.download).await?;
        let mut own = answer.piece().claim.is_none().then(|| Hasher::new(Algorithm::Crc32));
        let mut flow = self.limit.as_ref().map(RateLimiter::flow);
        while let Some(bytes) = answer.chunk().await.map_err(DownloadError::from)? {
            let count = bytes.len() as u64;
            if let Some(flow) = &mut flow {
                flow.charge(count).await;
            }
            if let Some(own) = &mut own {
                own.update(&bytes);
            }
            writer.write(bytes).await?;
            let _ = self.tell.send(Told::Bytes { piece, flight: self.flight, count });
        }
        let verified = answer.received().and_then(|received| received.verified);
        // The store keeps a digest with each piece, so that it notices damage of its own.
        let own = own.map(Hasher::finish);
        let (digest, checked) = match (verified, own) {
            (Some(digest), _) => (digest, Checked::Verified),
            (None, Some(digest)) => (digest, Checked::Unverified),
            (None, None) => return Err(DownloadError::from(Failure::NotAnswered).into()),
        };
        let created_at = i64::try_from(self.runtime.unix_time().as_secs()).unwrap_or(i64::MAX);
        let provenance = Provenance {
            digest,
            parent_id: ParentId::new(&self.peer.address.to_string()),
            //= VTX-CNT-015
            cost: self.runtime.now().saturating_duration_since(begun).as_secs(),
            created_at,
        };
        writer.commit(provenance).await?;
        Ok(checked)
    }
}

/// What a failure says of the peer.
fn fault(error: &DownloadError) -> Fault {
    match error {
        #[cfg(feature = "tls")]
        DownloadError::Connect(ConnectError::Refused(_)) => Fault::Refused,
        DownloadError::Connect(ConnectError::Unavailable(_)) => Fault::Refused,
        DownloadError::Connect(_) => Fault::Failed,
        DownloadError::Request(RequestError::Failed(failure)) => match failure {
            Failure::Refused { code: ErrorCode::NotFound, .. } => Fault::Lacks,
            Failure::Rejected(Rejection::Incomplete { .. } | Rejection::Reset) => Fault::Failed,
            // Cut off within the packet.
            Failure::Rejected(Rejection::Malformed(crate::wire::DecodeError::Truncated { .. })) => {
                Fault::Failed
            }
            Failure::Rejected(_) => Fault::Lied,
            Failure::Refused { .. } | Failure::NotAnswered | Failure::GoingAway => Fault::Failed,
        },
        DownloadError::Request(_) => Fault::Failed,
    }
}
