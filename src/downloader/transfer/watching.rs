//! What peers hold that are fetching the file themselves: each is asked all the time, and answers when it has news.

use super::plan::PeerIndex;
use super::{DownloadError, Peer, Protocol, Transfer};
use crate::client::ExtensionReply;
use crate::downloader::Downloader;
use crate::runtime::SharedRuntime;
use crate::store::{PieceSet, TaskKey};
use crate::wire::extension::{ExtensionRequest, Hold, MAX_AVAILABILITY};
use futures_util::future::{AbortHandle, Abortable};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// For how long a peer may hold its answer back: it is then asked once more, and so noticed where it has gone.
const WAIT: Duration = Duration::from_secs(8);
/// The pause before a peer is asked again that answers at once without news, or not at all; it doubles up to the longest.
const PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(4);

/// A peer has said what it holds.
pub(super) struct Told {
    pub(super) peer: PeerIndex,
    /// The pieces that it spoke of.
    pub(super) told: Range<u32>,
    /// Those of them that it holds.
    pub(super) held: PieceSet,
}

/// Asks every peer of a swarm, each in a task of its own, until these are aborted.
pub(super) fn watch(transfer: &Transfer) -> (BTreeMap<PeerIndex, AbortHandle>, mpsc::Receiver<Told>) {
    let Transfer { runtime, downloaders, task, peers, swarm, .. } = transfer;
    // Who is not listened to is not asked again.
    let (tell, told) = mpsc::channel(1);
    let mut watches = BTreeMap::new();
    for (index, peer) in peers.iter().enumerate().filter(|_| *swarm) {
        let Ok(downloader) = downloaders.downloader(peer.protocol).cloned() else { continue };
        let pieces = u32::try_from(task.division.pieces()).unwrap_or(u32::MAX);
        let (runtime, tell) = (runtime.clone(), tell.clone());
        let watch =
            Watch { runtime: runtime.clone(), downloader, peer: *peer, index, key: task.key, pieces, tell };
        let (abort, registration) = AbortHandle::new_pair();
        let watching = Abortable::new(watch.run(), registration);
        runtime.spawn(Box::pin(async move {
            let _ = watching.await;
        }));
        watches.insert(index, abort);
    }
    (watches, told)
}

struct Watch {
    runtime: SharedRuntime,
    downloader: Arc<dyn Downloader>,
    peer: Peer,
    index: PeerIndex,
    key: TaskKey,
    pieces: u32,
    tell: mpsc::Sender<Told>,
}

impl Watch {
    /// Until the peer holds everything, does not say what it holds, or nobody listens.
    async fn run(self) {
        let mut first = 0;
        let mut known = None;
        let mut pause = PAUSE;
        loop {
            let asked_at = self.runtime.now();
            let asked = self.ask(first, known).await;
            let (told, held) = match asked {
                Ok(Some(told)) => told,
                Ok(None) => return,
                Err(_) => {
                    self.runtime.sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    continue;
                }
            };
            let (count, news) = (held.len(), known != Some(held.len()));
            let at_once = self.runtime.now().saturating_duration_since(asked_at) < WAIT;
            let whole = count == u64::from(told.end - told.start);
            let end = told.end;
            if news && self.tell.send(Told { peer: self.index, told, held }).await.is_err() {
                return;
            }
            (known, pause) = (Some(count), PAUSE);
            if whole {
                // What it has, it keeps: on to the pieces that did not fit into the answer.
                if end >= self.pieces {
                    return;
                }
                (first, known) = (end, None);
            } else if !news && at_once {
                // It does not hold its answers back.
                self.runtime.sleep(PAUSE).await;
            }
        }
    }

    /// What the peer holds of the pieces from `first` on, as soon as these are not `known` in number. `None`: it does not say.
    async fn ask(
        &self,
        first: u32,
        known: Option<u64>,
    ) -> Result<Option<(Range<u32>, PieceSet)>, DownloadError> {
        // A request that waits on purpose looks like a way that has gone silent, where there are several.
        let patient = self.peer.protocol != Protocol::Auto;
        let known = known.filter(|_| patient).and_then(|known| u32::try_from(known).ok());
        let wait = u32::try_from(WAIT.as_millis()).unwrap_or(u32::MAX);
        //= VTX-EXT-024
        let hold = known.map(|known| Hold { known, wait });
        let TaskKey { kind, id: task_id } = self.key;
        let request = ExtensionRequest::Availability { kind, task_id, first, hold };
        let reply = self.downloader.extension(self.peer.address, request).await?;
        let Some(ExtensionReply::Availability(told)) = reply.filter(|_| first < self.pieces) else {
            return Ok(None);
        };
        // What it says of pieces that the task does not have is of no interest.
        let expected = (self.pieces - first).min(MAX_AVAILABILITY);
        if told.first != first || told.held.len() as u64 != u64::from(expected) {
            return Ok(None);
        }
        let held = (first..).zip(told.held).filter(|(_, held)| *held).map(|(number, _)| number);
        Ok(Some((first..first + expected, held.collect())))
    }
}
