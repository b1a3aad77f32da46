//! A transfer under way: what the plan decides is done, and it is told what came of it.

use super::fetch::{Gauge, Landed, Lost, Means};
use super::plan::{Fault, PeerIndex, Plan, Standing, Step};
use super::watching::{self, Told};
use super::{Event, PeerReport, Report, Transfer, TransferError, Verdict, fault};
use crate::client::Ask;
use crate::store::StoreError;
use futures_util::future::{AbortHandle, Abortable};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tracing::Instrument as _;

/// How often it is looked how far the requests are.
const LOOK: Duration = Duration::from_millis(100);

/// What the task of a flight ends with.
enum Ended {
    Fetched(Result<Landed, Lost>),
    Committed(Result<(), StoreError>),
}

/// What the transfer waits for.
enum Heard {
    Ended(u64, Ended),
    Told(Told),
}

/// A flight that is under way; dropped, its task is given up.
struct Flight {
    peer: PeerIndex,
    number: u32,
    asked_at: Instant,
    /// Bytes that the observer was told of.
    told: u64,
    verified: bool,
    gauge: Arc<Gauge>,
    abort: AbortHandle,
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.abort.abort();
    }
}

pub(super) struct Running<'a> {
    transfer: &'a Transfer,
    means: Means,
    plan: Plan,
    report: &'a mut Report,
    flights: BTreeMap<u64, Flight>,
    tell: mpsc::UnboundedSender<(u64, Ended)>,
    told: mpsc::UnboundedReceiver<(u64, Ended)>,
    /// What peers say that they hold.
    news: mpsc::Receiver<Told>,
    watches: BTreeMap<PeerIndex, AbortHandle>,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.watches.values().for_each(AbortHandle::abort);
    }
}

impl<'a> Running<'a> {
    pub(super) fn new(transfer: &'a Transfer, plan: Plan, report: &'a mut Report) -> Self {
        let Transfer { runtime, store, limit, .. } = transfer;
        let means = Means { runtime: runtime.clone(), store: store.clone(), limiter: limit.clone() };
        // As many messages as flights at most: each task sends one at its end.
        let (tell, told) = mpsc::unbounded_channel();
        let (watches, news) = watching::watch(transfer);
        Self { transfer, means, plan, report, flights: BTreeMap::new(), tell, told, news, watches }
    }

    /// Runs until every piece is there, or nobody is left who could give what is missing.
    pub(super) async fn run(mut self) -> Result<(), TransferError> {
        loop {
            let now = self.means.runtime.now();
            let wake = loop {
                match self.plan.next(now) {
                    Step::Ask { flight, peer, number, spare } => self.ask(flight, peer, number, spare, now),
                    Step::Stalled { flight } => self.stalled(flight, now),
                    Step::Wait(wake) => break wake,
                    Step::Stuck(piece) => {
                        let (left, peers) = (self.plan.missing(), self.report.peers.clone());
                        return Err(TransferError::Stuck { piece, left, peers });
                    }
                    Step::Done => return Ok(()),
                }
            };
            let look = (!self.flights.is_empty()).then(|| now + LOOK);
            let heard = self.wait([wake, look].into_iter().flatten().min()).await;
            let now = self.means.runtime.now();
            self.look(now);
            match heard {
                Some(Heard::Ended(flight, ended)) => self.ended(flight, ended, now)?,
                Some(Heard::Told(Told { peer, told, held })) => self.plan.holds(peer, told, &held, now),
                None => {}
            }
        }
    }

    /// Waits for the end of a task or for what a peer tells, but not beyond `wake`.
    async fn wait(&mut self, wake: Option<Instant>) -> Option<Heard> {
        let Self { told, news, means, .. } = self;
        let heard = poll_fn(|cx| {
            if let Poll::Ready(Some((flight, ended))) = told.poll_recv(cx) {
                return Poll::Ready(Heard::Ended(flight, ended));
            }
            match news.poll_recv(cx) {
                Poll::Ready(Some(told)) => Poll::Ready(Heard::Told(told)),
                // Nobody is left who would tell anything.
                Poll::Ready(None) | Poll::Pending => Poll::Pending,
            }
        });
        match wake {
            Some(wake) => means.runtime.until(wake, heard).await.ok(),
            None => Some(heard.await),
        }
    }

    fn ask(&mut self, flight: u64, index: PeerIndex, number: u32, spare: bool, now: Instant) {
        let Transfer { downloaders, task, digests, lenient, peers, .. } = self.transfer;
        let Some(peer) = peers.get(index).copied() else { return };
        let ask = Ask {
            download: task.key.piece(number),
            length: task.division.piece(number).map(|span| span.length),
            digest: usize::try_from(number).ok().and_then(|number| digests.get(number)).copied(),
            lenient: *lenient,
        };
        tracing::debug!(%peer, piece = number, spare, "asks for a piece");
        let downloader = downloaders.downloader(peer.protocol).cloned();
        let (gauge, means) = (Arc::<Gauge>::default(), self.means.clone());
        let fetch = {
            let gauge = gauge.clone();
            async move { Ended::Fetched(means.fetch(downloader, peer, ask, spare, gauge).await) }
        };
        let abort = self.start(flight, fetch);
        let (told, verified) = (0, false);
        let new = Flight { peer: index, number, asked_at: now, told, verified, gauge, abort };
        self.flights.insert(flight, new);
    }

    /// Works for a flight in a task of its own, so that several cores can share the load.
    fn start(&self, flight: u64, work: impl Future<Output = Ended> + Send + 'static) -> AbortHandle {
        let (abort, registration) = AbortHandle::new_pair();
        let (work, tell) = (Abortable::new(work, registration), self.tell.clone());
        let telling = async move {
            if let Ok(ended) = work.await {
                // The transfer may be gone.
                let _ = tell.send((flight, ended));
            }
        };
        self.means.runtime.spawn(Box::pin(telling.in_current_span()));
        abort
    }

    /// Tells the plan, and whoever watches, how far everybody is.
    fn look(&mut self, now: Instant) {
        for (id, Flight { peer, gauge, told, .. }) in &mut self.flights {
            if let Some(answered_at) = gauge.answered_at.get() {
                self.plan.answered(*id, *answered_at);
            }
            let received = gauge.received.load(Relaxed);
            self.plan.progress(*id, received, gauge.held_up.load(Relaxed), now);
            if received > *told {
                self.transfer.tell(Event::Bytes { peer: *peer, count: received - *told });
                *told = received;
            }
        }
    }

    fn ended(&mut self, id: u64, ended: Ended, now: Instant) -> Result<(), TransferError> {
        // A flight that was given up ends once more, when its future does.
        let Some(number) = self.flights.get(&id).map(|flight| flight.number) else { return Ok(()) };
        match ended {
            Ended::Fetched(Ok(landed)) => {
                let Some(others) = self.plan.verified(id, now) else {
                    self.beaten(id);
                    return Ok(());
                };
                for other in others {
                    self.beaten(other);
                }
                let (means, verified) = (self.means.clone(), landed.verified);
                let download = self.transfer.task.key.piece(number);
                let abort =
                    self.start(id, async move { Ended::Committed(means.commit(landed, download).await) });
                if let Some(flight) = self.flights.get_mut(&id) {
                    (flight.verified, flight.abort) = (verified, abort);
                }
            }
            Ended::Committed(Ok(())) => self.committed(id, now),
            Ended::Fetched(Err(lost)) => self.lost(id, lost, now)?,
            Ended::Committed(Err(error)) => return Err(error.into()),
        }
        Ok(())
    }

    /// A peer, as logs name it.
    fn named(&self, peer: PeerIndex) -> Option<impl tracing::Value> {
        self.transfer.peers.get(peer).map(tracing::field::display)
    }

    /// Another answer was first.
    fn beaten(&mut self, id: u64) {
        let Some(flight) = self.flights.remove(&id) else { return };
        let Flight { number, peer, .. } = flight;
        tracing::debug!(peer = self.named(peer), piece = number, "gives up the later of two answers");
        self.transfer.tell(Event::Beaten { number, peer });
    }

    fn committed(&mut self, id: u64, now: Instant) {
        self.plan.committed(id, now);
        let Some(flight) = self.flights.remove(&id) else { return };
        let Flight { peer, number, asked_at, verified, .. } = flight;
        let bytes = self.transfer.task.division.piece(number).map_or(0, |span| span.length.into());
        //= VTX-DIG-013
        self.report.unverified += u64::from(!verified);
        if let Some(report) = self.report.peers.get_mut(peer) {
            report.pieces += 1;
            report.bytes += bytes;
        }
        let elapsed = now.saturating_duration_since(asked_at);
        tracing::debug!(peer = self.named(peer), piece = number, ?elapsed, verified, "has stored a piece");
        self.transfer.tell(Event::Piece { number, peer, bytes, elapsed });
    }

    fn lost(&mut self, id: u64, lost: Lost, now: Instant) -> Result<(), StoreError> {
        let Some(flight) = self.flights.remove(&id) else { return Ok(()) };
        match lost {
            Lost::Store(error) => Err(error),
            Lost::Download(error) => {
                let fault = fault(&error);
                let verdict = match fault {
                    Fault::Lie => Verdict::Lied,
                    Fault::Missing => Verdict::Lacks,
                    Fault::Useless => Verdict::Refused,
                    Fault::Failed | Fault::Broken => Verdict::of(&error),
                };
                self.failed(id, &flight, fault, (verdict, error.to_string()), now);
                Ok(())
            }
        }
    }

    fn stalled(&mut self, id: u64, now: Instant) {
        let Some(flight) = self.flights.remove(&id) else { return };
        let reason = "the peer has gone silent in the middle of its answer".to_owned();
        self.failed(id, &flight, Fault::Failed, (Verdict::TimedOut, reason), now);
    }

    fn failed(&mut self, id: u64, flight: &Flight, fault: Fault, last: (Verdict, String), now: Instant) {
        let Flight { peer, number, .. } = *flight;
        let gone = self.plan.failed(id, fault, now) == Standing::GivenUp;
        let Some(report) = self.report.peers.get_mut(peer) else { return };
        let newly_gone = gone && !report.gone;
        let reason = last.1.clone();
        tracing::debug!(peer = %report.peer, piece = number, %reason, gone, "did not get a piece");
        *report = PeerReport { failures: report.failures + 1, last: Some(last), gone, ..report.clone() };
        self.transfer.tell(Event::Retry { number, peer, reason: reason.clone() });
        if newly_gone {
            if let Some(watch) = self.watches.remove(&peer) {
                watch.abort();
            }
            self.transfer.tell(Event::PeerGone { peer, reason });
        }
    }
}
