//! Connections that are kept for the next request.
//!
//! [`state`] decides, without I/O; here its decisions are carried out. A connection in use is never closed, a closed one
//! never handed out, and the first requests to a peer share one handshake, which goes on when one of them is given up.

mod state;

pub(crate) use state::Pooled;
pub use state::{PoolSettings, PoolStats};

use super::{ConnectError, DownloadError};
use crate::runtime::{BoxFuture, SharedRuntime};
use crate::watch;
use state::{CheckOut, State};
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;
use tracing::{Instrument as _, Span};

/// Makes the connections of a pool.
pub(crate) trait Dial<C>: Send + Sync + 'static {
    /// A connection to `to`, within the connect deadline.
    fn dial(&self, to: SocketAddr) -> BoxFuture<'static, Result<C, ConnectError>>;
}

/// How a handshake ended that several wait for.
type Handshake<C> = Result<Arc<Reserved<C>>, ConnectError>;

/// Where they wait for it; `None` while it has not ended.
type Ended<C> = watch::Receiver<Option<Handshake<C>>>;

/// A pool of connections. Clones are the same pool.
pub(crate) struct Pool<C: Pooled>(Arc<Inner<C>>);

struct Inner<C: Pooled> {
    runtime: SharedRuntime,
    dial: Box<dyn Dial<C>>,
    shared: Mutex<Shared<C>>,
}

struct Shared<C: Pooled> {
    state: State<C, ConnectError>,
    /// Handshakes that requests wait for together.
    handshakes: BTreeMap<SocketAddr, Ended<C>>,
    /// Whether somebody is there to close what gets old.
    swept: bool,
}

/// What a request goes on with.
enum Next<C: Pooled> {
    Use(Lease<C>),
    Wait(Ended<C>),
    Dial(Dialing<C>),
}

impl<C: Pooled> Clone for Pool<C> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<C: Pooled> Pool<C> {
    pub(crate) fn new(runtime: SharedRuntime, settings: PoolSettings, dial: impl Dial<C>) -> Self {
        let shared = Shared { state: State::new(settings), handshakes: BTreeMap::new(), swept: false };
        Self(Arc::new(Inner { runtime, dial: Box::new(dial), shared: Mutex::new(shared) }))
    }

    pub(crate) fn stats(&self) -> PoolStats {
        self.0.lock().state.stats()
    }

    /// A connection to `address`: one that is there, or a new one.
    pub(crate) async fn get(&self, address: SocketAddr) -> Result<Lease<C>, ConnectError> {
        let mut _reserved = None;
        // A connection that its peer closes as soon as it is there must not be dialed for ever.
        for _ in 0..2 {
            match self.next(address)? {
                Next::Use(lease) => return Ok(lease),
                Next::Wait(ended) => _reserved = Some(wait(ended).await?),
                Next::Dial(dialing) => return self.0.dial_alone(dialing).await,
            }
        }
        match self.next(address)? {
            Next::Use(lease) => Ok(lease),
            Next::Wait(_) | Next::Dial(_) => Err(ConnectError::Closed),
        }
    }

    /// Makes sure that there is a connection to `address`, so that the next request finds it.
    pub(crate) async fn reach(&self, address: SocketAddr) -> Result<(), ConnectError> {
        self.get(address).await.map(drop)
    }

    /// A new connection to `address`, whatever there is, for one request alone.
    pub(crate) async fn get_new(&self, address: SocketAddr) -> Result<Lease<C>, ConnectError> {
        if C::SHARED {
            return self.get(address).await;
        }
        self.0.lock().state.dialing(address);
        self.0.dial_alone(Dialing::new(&self.0, address, None)).await
    }

    /// Carries out `exchange` over a connection to `address`. A connection that was there may have ended unnoticed, with
    /// its peer: then the exchange is carried out once more, over another one.
    pub(crate) async fn exchange<T, F>(
        &self,
        address: SocketAddr,
        mut exchange: impl FnMut(C, Lease<C>) -> F + Send,
    ) -> Result<T, DownloadError>
    where
        F: Future<Output = Result<T, DownloadError>> + Send,
    {
        let mut lease = self.get(address).await?;
        let mut client = lease.take().ok_or(ConnectError::Closed)?;
        Span::current().record("connection", lease.id);
        let may_have_ended = client.may_have_ended();
        match exchange(client, lease).await {
            Err(DownloadError::Request(error)) if may_have_ended && C::shows_end(&error) => {}
            other => return other,
        }
        lease = self.get_new(address).await?;
        Span::current().record("connection", lease.id);
        client = lease.take().ok_or(ConnectError::Closed)?;
        exchange(client, lease).await
    }

    fn next(&self, address: SocketAddr) -> Result<Next<C>, ConnectError> {
        let mut handshake = None;
        let next = self.0.with(|shared, now| {
            let checked = shared.state.check_out(address, now);
            if C::SHARED && matches!(checked, CheckOut::Dial | CheckOut::Ready { widen: true, .. }) {
                let (report, ended) = watch::channel(None);
                shared.handshakes.insert(address, ended);
                handshake = Some(Dialing::new(&self.0, address, Some(report)));
            }
            Ok(match checked {
                CheckOut::Ready { id, connection, .. } => {
                    Next::Use(Lease { pool: self.0.clone(), address, id, connection: Some(connection) })
                }
                CheckOut::Failed(error) => return Err(error),
                CheckOut::Dial | CheckOut::Join => match shared.handshakes.get(&address) {
                    Some(ended) => Next::Wait(ended.clone()),
                    None => Next::Dial(Dialing::new(&self.0, address, None)),
                },
            })
        });
        if let Some(dialing) = handshake {
            // Logs tell of it within the request that came first.
            self.0.runtime.spawn(Box::pin(dial_for_all(dialing).in_current_span()));
        }
        next
    }
}

/// Dials for everybody who waits for this peer: the end of none of them ends it.
async fn dial_for_all<C: Pooled>(mut dialing: Dialing<C>) {
    let outcome = dialing.pool.dial.dial(dialing.address).await;
    let report = dialing.report.take();
    let outcome = match outcome {
        Ok(connection) => {
            let (pool, address) = (dialing.pool.clone(), dialing.address);
            let id = dialing.succeeded(Some(connection), false);
            Ok(Arc::new(Reserved { pool, address, id }))
        }
        Err(error) => {
            dialing.failed(&error);
            Err(error)
        }
    };
    if let Some(report) = report {
        report.send(Some(outcome));
    }
}

async fn wait<C: Pooled>(ended: Ended<C>) -> Handshake<C> {
    match ended.wait_for(Option::is_some).await {
        Ok(outcome) => outcome.unwrap_or(Err(ConnectError::Closed)),
        // The runtime has dropped the task.
        Err(_) => Err(ConnectError::Closed),
    }
}

impl<C: Pooled> fmt::Debug for Pool<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pool").field(&self.stats()).finish()
    }
}

impl<C: Pooled> Inner<C> {
    fn lock(&self) -> MutexGuard<'_, Shared<C>> {
        // Every change is complete before anything that could panic.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Dials for one request: given up with it.
    async fn dial_alone(self: &Arc<Self>, dialing: Dialing<C>) -> Result<Lease<C>, ConnectError> {
        let address = dialing.address;
        match self.dial.dial(address).await {
            Ok(connection) => {
                let id = dialing.succeeded(connection.share(), true);
                let connection = Some(connection);
                Ok(Lease { pool: self.clone(), address, id, connection })
            }
            Err(error) => {
                dialing.failed(&error);
                Err(error)
            }
        }
    }

    /// Changes the state, closes what has left it, and sees to it that somebody sweeps.
    fn with<T>(self: &Arc<Self>, change: impl FnOnce(&mut Shared<C>, Instant) -> T) -> T {
        let now = self.runtime.now();
        let mut shared = self.lock();
        let result = change(&mut shared, now);
        let retired = shared.state.retired();
        if !retired.is_empty() {
            tracing::debug!(connections = retired.len(), stats = ?shared.state.stats(), "the pool lets go of connections");
        }
        let sweep = !shared.swept && shared.state.next_sweep().is_some();
        shared.swept |= sweep;
        // Closing runs code of the transport, which may come back here.
        drop(shared);
        drop(retired);
        if sweep {
            self.runtime.spawn(Box::pin(sweep_until_empty(self.runtime.clone(), Arc::downgrade(self))));
        }
        result
    }
}

/// Sweeps as long as there is something to sweep, and keeps no pool alive.
async fn sweep_until_empty<C: Pooled>(runtime: SharedRuntime, pool: Weak<Inner<C>>) {
    loop {
        let next = {
            let Some(pool) = pool.upgrade() else { return };
            let mut shared = pool.lock();
            let Some(next) = shared.state.next_sweep() else {
                shared.swept = false;
                return;
            };
            next
        };
        runtime.sleep_until(next).await;
        let Some(pool) = pool.upgrade() else { return };
        pool.with(|shared, now| shared.state.sweep(now));
    }
}

/// A handshake that the state counts: dropped, it was given up.
struct Dialing<C: Pooled> {
    pool: Arc<Inner<C>>,
    address: SocketAddr,
    /// Tells those who wait, where it is for more than one.
    report: Option<watch::Sender<Option<Handshake<C>>>>,
    ended: bool,
}

impl<C: Pooled> Dialing<C> {
    fn new(
        pool: &Arc<Inner<C>>,
        address: SocketAddr,
        report: Option<watch::Sender<Option<Handshake<C>>>>,
    ) -> Self {
        Self { pool: pool.clone(), address, report, ended: false }
    }

    fn succeeded(mut self, connection: Option<C>, in_use: bool) -> u64 {
        tracing::debug!(peer = %self.address, "the pool has a new connection");
        self.end(|state, address, now| state.dialed(address, connection, in_use, now))
    }

    fn failed(mut self, error: &ConnectError) {
        tracing::debug!(peer = %self.address, %error, "the pool got no connection");
        self.end(|state, address, now| state.dial_failed(address, Some(error.clone()), now));
    }

    fn end<T>(&mut self, change: impl FnOnce(&mut State<C, ConnectError>, SocketAddr, Instant) -> T) -> T {
        self.ended = true;
        self.pool.with(|shared, now| {
            // In one step with the change: whoever looks sees the handshake or its outcome.
            if C::SHARED {
                shared.handshakes.remove(&self.address);
            }
            change(&mut shared.state, self.address, now)
        })
    }
}

impl<C: Pooled> Drop for Dialing<C> {
    fn drop(&mut self) {
        if !self.ended {
            self.end(|state, address, now| state.dial_failed(address, None, now));
        }
    }
}

/// A new connection that is kept for those who have waited for it: while one of them is still to take it, a pool that is
/// full does not close it to make room.
struct Reserved<C: Pooled> {
    pool: Arc<Inner<C>>,
    address: SocketAddr,
    id: u64,
}

impl<C: Pooled> Drop for Reserved<C> {
    fn drop(&mut self) {
        self.pool.with(|shared, now| shared.state.unreserve(self.address, self.id, now));
    }
}

/// A connection in the hands of a request. Dropped, it goes back; an exclusive one that was taken out and not given back
/// is gone.
pub(crate) struct Lease<C: Pooled> {
    pool: Arc<Inner<C>>,
    address: SocketAddr,
    id: u64,
    connection: Option<C>,
}

impl<C: Pooled> Lease<C> {
    /// The connection, once.
    pub(crate) fn take(&mut self) -> Option<C> {
        self.connection.take()
    }

    /// Takes the connection out of the pool: no other request gets it. Those that use it are not disturbed.
    #[cfg(any(feature = "quic", feature = "grpc"))]
    pub(crate) fn retire(&self) {
        self.pool.with(|shared, _| shared.state.retire(self.address, self.id));
    }

    /// Gives an exclusive connection back, free for the next request.
    pub(crate) fn give_back(mut self, connection: C) {
        self.connection = Some(connection);
    }
}

impl<C: Pooled> Drop for Lease<C> {
    fn drop(&mut self) {
        let returned = self.connection.take();
        self.pool.with(|shared, now| shared.state.release(self.address, self.id, returned, now));
    }
}

impl<C: Pooled> fmt::Debug for Lease<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("address", &self.address).field("id", &self.id).finish_non_exhaustive()
    }
}
