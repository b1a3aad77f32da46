//! Many peers, one file: the missing pieces of a task, from peers into a store.
//!
//! `plan` decides, without I/O; here its decisions are carried out. A request streams its piece into the store while
//! it is verified, so memory does not grow with pieces. Dropped, a transfer gives everything up that is under way, and
//! loses nothing that is in the store: the next one goes on from there.

mod describe;
mod event;
mod fetch;
mod plan;
mod running;
mod watching;

pub use describe::{DescribeError, MAX_DESCRIBED_PIECES, describe, probe};
pub use event::{Event, PeerReport, Report, TransferError, Verdict};
pub use plan::{PeerIndex, PlanSettings};

use super::{DownloadError, DownloaderFactory, Peer, Protocol};
use crate::canary::planted;
use crate::client::{Failure, Rejection, RequestError};
use crate::rate::RateLimiter;
use crate::runtime::SharedRuntime;
use crate::store::{NewTask, PieceSet, SharedStore};
use crate::wire::{Digest, ErrorCode};
use plan::{Fault, Order, Plan};
use running::Running;
use std::sync::Arc;
use std::time::Duration;

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
    /// Whether the peers may be fetching the file themselves: they are asked all the time what they hold, and the pieces
    /// come in an order in which those that fetch at the same time soon have something for each other.
    pub swarm: bool,
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

impl Transfer {
    /// Gets every piece that is wanted and not in the store yet.
    ///
    /// # Errors
    /// [`TransferError`]. What has arrived by then stays in the store.
    #[tracing::instrument(level = "debug", name = "transfer", skip_all, fields(task = %self.task.key.id.short()))]
    pub async fn run(self) -> Result<Report, TransferError> {
        if self.peers.is_empty() {
            return Err(TransferError::NoPeers);
        }
        let begun = self.runtime.now();
        let task = self.store.create(self.task).await?;
        let held = self.store.held(task.key).await?;
        let held = if planted("held-forgotten") { PieceSet::new() } else { held };
        let all = || {
            let mut all = PieceSet::new();
            all.insert_range(0..=u32::try_from(task.division.pieces() - 1).unwrap_or(u32::MAX));
            all
        };
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
        let order = if self.swarm { Order::Rarest(self.draw()) } else { Order::Ascending };
        let several_ways = self.peers.iter().map(|peer| peer.protocol == Protocol::Auto);
        let plan = Plan::new(self.plan, task.division, missing, several_ways, order);
        Running::new(&self, plan, &mut report).run().await?;
        report.elapsed = self.runtime.now().saturating_duration_since(begun);
        Ok(report)
    }

    fn draw(&self) -> u64 {
        let mut bytes = [0; 8];
        self.runtime.fill_random(&mut bytes);
        u64::from_be_bytes(bytes)
    }

    fn tell(&self, event: Event) {
        if let Some(observer) = &self.observer {
            observer(event);
        }
    }
}

/// What a failure says of the peer. Whether it said before that it holds the piece makes no difference.
//= VTX-EXT-018
fn fault(error: &DownloadError) -> Fault {
    match error {
        DownloadError::Connect(error) if error.is_final() => Fault::Useless,
        DownloadError::Connect(_) => Fault::Failed,
        DownloadError::Request(RequestError::Failed(failure)) => match failure {
            Failure::Refused { code: ErrorCode::NotFound, .. } => Fault::Missing,
            Failure::Rejected(Rejection::Incomplete { .. } | Rejection::Reset) => Fault::Broken,
            // Cut off within the packet.
            Failure::Rejected(Rejection::Malformed(crate::wire::DecodeError::Truncated { .. })) => {
                Fault::Broken
            }
            Failure::Rejected(_) => Fault::Lie,
            Failure::Refused { .. } | Failure::NotAnswered | Failure::GoingAway => Fault::Failed,
        },
        DownloadError::Request(_) => Fault::Failed,
    }
}
