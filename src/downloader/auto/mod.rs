//! Peers that can be reached in several ways: each request takes the one that works best.
//!
//! [`chooser`] decides, without I/O; here its decisions are carried out. What was learnt of a peer is remembered as long
//! as the downloader lives.

mod chooser;

pub use chooser::AutoSettings;

use super::{ConnectError, DownloadError, Downloader, DownloaderFactory, Peer, Protocol};
use crate::client::{Answer, Ask, ExtensionReply, Progress, RequestError, Source};
use crate::runtime::{BoxFuture, SharedRuntime, Timer};
use crate::watch;
use crate::wire::extension::ExtensionRequest;
use chooser::{Chooser, End, Step, Turn};
use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};
use tracing::Instrument as _;

/// What was found out about the ways to a peer.
#[derive(Debug, Clone)]
pub enum AutoEvent {
    /// A way is open.
    Open {
        /// The peer.
        peer: Peer,
        /// The way.
        way: Peer,
    },
    /// A way is not open yet, so another one is tried besides.
    Late {
        /// The peer.
        peer: Peer,
        /// The way.
        way: Peer,
        /// How long it has been tried.
        waited: Duration,
    },
    /// A way is of no use at present.
    Closed {
        /// The peer.
        peer: Peer,
        /// The way.
        way: Peer,
        /// Why.
        error: ConnectError,
    },
    /// Requests take this way from now on.
    Taken {
        /// The peer.
        peer: Peer,
        /// The way.
        way: Peer,
    },
}

/// Whoever watches how ways are found.
pub type AutoObserver = Arc<dyn Fn(AutoEvent) + Send + Sync>;

/// Asks each peer over whichever of its protocols works best.
///
/// A peer is made known by [`AutoDownloader::join`], and is asked at the address that it returns.
#[derive(Clone)]
pub struct AutoDownloader(Arc<Shared>);

struct Shared {
    runtime: SharedRuntime,
    downloaders: DownloaderFactory,
    settings: AutoSettings,
    observer: Option<AutoObserver>,
    peers: Mutex<BTreeMap<SocketAddr, Known>>,
}

struct Known {
    ways: Vec<Peer>,
    chooser: Chooser<ConnectError>,
    /// Counts what was reported.
    changed: watch::Sender<u64>,
}

impl fmt::Debug for AutoDownloader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AutoDownloader").field("settings", &self.0.settings).finish_non_exhaustive()
    }
}

impl AutoDownloader {
    /// Asks by `downloaders`, as far as these have the protocols.
    #[must_use]
    pub fn new(
        runtime: SharedRuntime,
        downloaders: DownloaderFactory,
        settings: AutoSettings,
        observer: Option<AutoObserver>,
    ) -> Self {
        Self(Arc::new(Shared { runtime, downloaders, settings, observer, peers: Mutex::default() }))
    }

    /// Makes a peer known that can be reached in several `ways`, which are tried in the order QUIC, TCP, gRPC, and those of
    /// one protocol in the order given. The peer that is returned stands for all of them; `None` where there is none.
    pub fn join(&self, ways: impl IntoIterator<Item = Peer>) -> Option<Peer> {
        let mut ways: Vec<Peer> = ways.into_iter().filter(|way| way.protocol != Protocol::Auto).collect();
        ways.sort_by_key(|way| way.protocol);
        let address = ways.first()?.address;
        let streams = ways.iter().map(|way| way.protocol != Protocol::Grpc);
        let chooser = Chooser::new(self.0.settings, streams);
        let known = Known { ways, chooser, changed: watch::Sender::new(0) };
        self.0.lock().insert(address, known);
        Some(Peer::new(Protocol::Auto, address))
    }

    /// Bytes of content that have come over each way to the peer at `address`.
    #[must_use]
    pub fn shares(&self, address: SocketAddr) -> Vec<(Peer, u64)> {
        let peers = self.0.lock();
        let Some(known) = peers.get(&address) else { return Vec::new() };
        known.ways.iter().copied().zip(known.chooser.bytes()).collect()
    }

    /// Carries out `exchange` over the best way to the peer at `address`, and over others where it can't be reached.
    async fn over<T, F>(
        &self,
        address: SocketAddr,
        mut exchange: impl FnMut(Arc<dyn Downloader>, Peer) -> F + Send,
    ) -> Result<(T, Asked), DownloadError>
    where
        F: Future<Output = Result<T, DownloadError>> + Send,
    {
        let mut turn = Turn::default();
        let mut patient = false;
        loop {
            let asked = self.0.way(address, &mut turn).await?;
            let Ok(downloader) = self.0.downloaders.downloader(asked.way.protocol).cloned() else {
                let missing = ConnectError::Unavailable(asked.way.protocol);
                asked.end(End::Failed(missing));
                continue;
            };
            let mut exchanging = pin!(exchange(downloader, asked.way));
            let outcome = loop {
                let until = self.0.runtime.now() + self.0.settings.silence;
                match self.0.runtime.until(until, &mut exchanging).await {
                    Ok(outcome) => break outcome,
                    // Once: a peer that takes its time does so whatever the way.
                    Err(_) if !patient && asked.is_hopeless() => {
                        patient = true;
                        break Err(ConnectError::from(silent()).into());
                    }
                    Err(_) => {}
                }
            };
            match outcome {
                Ok(result) => return Ok((result, asked)),
                Err(error) => match way_failed(&error) {
                    Some(failed) => asked.end(End::Failed(failed)),
                    None => {
                        asked.end(End::Answered);
                        return Err(error);
                    }
                },
            }
        }
    }
}

impl Downloader for AutoDownloader {
    fn protocol(&self) -> Protocol {
        Protocol::Auto
    }

    fn reach(&self, address: SocketAddr) -> BoxFuture<'_, Result<(), ConnectError>> {
        Box::pin(async move { self.0.way(address, &mut Turn::default()).await.map(drop) })
    }

    fn request(&self, address: SocketAddr, ask: Ask) -> BoxFuture<'_, Result<Answer, DownloadError>> {
        Box::pin(async move {
            let exchange = move |downloader: Arc<dyn Downloader>, way: Peer| async move {
                downloader.request(way.address, ask).await
            };
            let (answer, asked) = self.over(address, exchange).await?;
            asked.progress(|chooser, now| chooser.answered(asked.index, now));
            let timer = self.0.runtime.timer(self.0.runtime.now());
            Ok(answer.map(|source| Measured { source, asked: Some(asked), timer }))
        })
    }

    fn extension(
        &self,
        address: SocketAddr,
        request: ExtensionRequest,
    ) -> BoxFuture<'_, Result<Option<ExtensionReply>, DownloadError>> {
        Box::pin(async move {
            let exchange = move |downloader: Arc<dyn Downloader>, way: Peer| async move {
                downloader.extension(way.address, request).await
            };
            let (reply, asked) = self.over(address, exchange).await?;
            asked.end(End::Answered);
            Ok(reply)
        })
    }
}

/// Nothing comes any more, while there is another way.
fn silent() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "it has gone silent")
}

/// What a failure says of the way; `None` where the peer was reached over it.
fn way_failed(error: &DownloadError) -> Option<ConnectError> {
    match error {
        DownloadError::Connect(error) => Some(error.clone()),
        DownloadError::Request(error) => request_failed(error),
    }
}

fn request_failed(error: &RequestError) -> Option<ConnectError> {
    match error {
        RequestError::Failed(_) => None,
        RequestError::TimedOut(_) | RequestError::Lost(_) => Some(io::Error::other(error.to_string()).into()),
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<SocketAddr, Known>> {
        // Every change is complete before anything that could panic.
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, event: AutoEvent) {
        if let Some(observer) = &self.observer {
            observer(event);
        }
    }

    /// The way that a request takes, as soon as there is one.
    async fn way(self: &Arc<Self>, address: SocketAddr, turn: &mut Turn) -> Result<Asked, ConnectError> {
        loop {
            let now = self.runtime.now();
            let (step, way, changed, taken, late) = {
                let mut peers = self.lock();
                let known = peers.get_mut(&address).ok_or(ConnectError::Unavailable(Protocol::Auto))?;
                let before = known.chooser.present();
                let step = known.chooser.next(turn, now);
                let way = match step {
                    Step::Open(index) | Step::Ask(index) => known.ways.get(index).copied(),
                    Step::Wait(_) | Step::Failed(_) => None,
                };
                let present = known.chooser.present().filter(|present| before != Some(*present));
                let taken = present.and_then(|present| known.ways.get(present)).copied();
                let changed = known.changed.subscribe();
                let mut late = known.chooser.late(now);
                late.retain(|_| matches!(step, Step::Open(_)));
                let named = |(index, waited)| Some((*known.ways.get(index)?, waited));
                let late: Vec<_> = late.into_iter().filter_map(named).collect();
                (step, way, changed, taken, late)
            };
            let peer = Peer::new(Protocol::Auto, address);
            late.into_iter().for_each(|(way, waited)| self.tell(AutoEvent::Late { peer, way, waited }));
            if let Some(way) = taken {
                self.tell(AutoEvent::Taken { peer, way });
            }
            match (step, way) {
                (Step::Open(index), Some(way)) => self.open(address, index, way),
                (Step::Ask(index), Some(way)) => {
                    return Ok(Asked { shared: self.clone(), address, index, way, ended: false });
                }
                (Step::Wait(until), _) => wait(&self.runtime, changed, until).await,
                (Step::Failed(errors), _) => return Err(self.no_way(address, errors)),
                (Step::Open(_) | Step::Ask(_), None) => {
                    return Err(ConnectError::Unavailable(Protocol::Auto));
                }
            }
        }
    }

    /// Opens a way in a task of its own: the end of the request that wanted it does not end it.
    fn open(self: &Arc<Self>, address: SocketAddr, index: usize, way: Peer) {
        let shared = self.clone();
        let opening = async move {
            let outcome = match shared.downloaders.downloader(way.protocol) {
                Ok(downloader) => downloader.reach(way.address).await,
                Err(error) => Err(error),
            };
            let peer = Peer::new(Protocol::Auto, address);
            shared.tell(match &outcome {
                Ok(()) => AutoEvent::Open { peer, way },
                Err(error) => AutoEvent::Closed { peer, way, error: error.clone() },
            });
            shared.change(address, |chooser, now| chooser.opened(index, outcome, now));
        };
        self.runtime.spawn(Box::pin(opening.in_current_span()));
    }

    fn change(&self, address: SocketAddr, change: impl FnOnce(&mut Chooser<ConnectError>, Instant)) {
        let now = self.runtime.now();
        if let Some(known) = self.lock().get_mut(&address) {
            change(&mut known.chooser, now);
            known.changed.modify(|count| *count += 1);
        }
    }

    /// Why there is no way, by each.
    fn no_way(&self, address: SocketAddr, errors: Vec<(usize, ConnectError)>) -> ConnectError {
        let peers = self.lock();
        let Some(known) = peers.get(&address) else { return ConnectError::Unavailable(Protocol::Auto) };
        let named = |(index, error): (usize, ConnectError)| Some((*known.ways.get(index)?, error));
        ConnectError::NoWay(errors.into_iter().filter_map(named).collect())
    }
}

/// Waits until something is reported, but not beyond `until`.
async fn wait(runtime: &SharedRuntime, changed: watch::Receiver<u64>, until: Option<Instant>) {
    // The first look notes the count that the next ones have to differ from.
    let mut seen = None;
    let change = changed.wait_for(|count| *seen.get_or_insert(*count) != *count);
    match until {
        // Both a change and the end of the time are reasons to look again.
        Some(until) => drop(runtime.until(until, change).await),
        None => drop(change.await),
    }
}

/// A request that the chooser counts; dropped, it was given up.
struct Asked {
    shared: Arc<Shared>,
    address: SocketAddr,
    index: usize,
    way: Peer,
    ended: bool,
}

impl Asked {
    /// Bytes of the answer are here; nobody waits to hear of that.
    fn received(&self, bytes: u64) {
        self.progress(|chooser, now| chooser.received(self.index, bytes, now));
    }

    fn progress(&self, progress: impl FnOnce(&mut Chooser<ConnectError>, Instant)) {
        let now = self.shared.runtime.now();
        let open = {
            let mut peers = self.shared.lock();
            let Some(known) = peers.get_mut(&self.address) else { return };
            progress(&mut known.chooser, now);
            known.chooser.open(now).and_then(|index| Some((index, *known.ways.get(index)?)))
        };
        if let Some((index, way)) = open {
            self.shared.open(self.address, index, way);
        }
    }

    fn is_hopeless(&self) -> bool {
        let now = self.shared.runtime.now();
        self.shared.lock().get(&self.address).is_some_and(|known| known.chooser.is_hopeless(self.index, now))
    }

    fn end(mut self, end: End<ConnectError>) {
        self.report(end);
    }

    fn report(&mut self, end: End<ConnectError>) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let mut closed = None;
        if let End::Failed(error) = &end {
            closed = Some(error.clone());
        }
        self.shared.change(self.address, |chooser, now| {
            chooser.ended(self.index, end, || closed.insert(silent().into()).clone(), now);
        });
        if let Some(error) = closed {
            let peer = Peer::new(Protocol::Auto, self.address);
            self.shared.tell(AutoEvent::Closed { peer, way: self.way, error });
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.report(End::GivenUp);
    }
}

/// An answer whose bytes are counted for its way, and which is given up where another way is better than to wait.
struct Measured {
    source: Box<dyn Source>,
    /// `None` once it has ended.
    asked: Option<Asked>,
    timer: Pin<Box<dyn Timer>>,
}

impl Measured {
    /// What the source has next; `None` when it is not worth waiting for.
    async fn progress(&mut self) -> Option<Result<Progress, RequestError>> {
        let Self { source, asked, timer } = self;
        let mut next = source.next();
        let mut armed = false;
        poll_fn(|cx| {
            if let Poll::Ready(next) = next.as_mut().poll(cx) {
                return Poll::Ready(Some(next));
            }
            let Some(asked) = asked else { return Poll::Pending };
            let Shared { runtime, settings, .. } = &*asked.shared;
            // Most of the time something is there at once, and no timer is needed.
            loop {
                if !std::mem::replace(&mut armed, true) {
                    timer.as_mut().reset(runtime.now() + settings.silence);
                }
                match timer.as_mut().poll(cx) {
                    Poll::Ready(()) if asked.is_hopeless() => return Poll::Ready(None),
                    Poll::Ready(()) => armed = false,
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await
    }
}

impl Source for Measured {
    fn next(&mut self) -> BoxFuture<'_, Result<Progress, RequestError>> {
        Box::pin(async move {
            let next = self.progress().await.unwrap_or_else(|| Err(RequestError::Lost(silent())));
            let end = match &next {
                Ok(Progress::Content(bytes)) => {
                    if let Some(asked) = &self.asked {
                        asked.received(bytes.len() as u64);
                    }
                    return next;
                }
                Ok(Progress::Complete(_)) => End::Answered,
                Err(error) => request_failed(error).map_or(End::Answered, End::Failed),
            };
            if let Some(asked) = self.asked.take() {
                asked.end(end);
            }
            next
        })
    }
}
