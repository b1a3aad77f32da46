//! Connections that are kept for the next request.
//!
//! [`state`] decides, without I/O; here its decisions are carried out. A connection in use is never closed, a closed one
//! never handed out, and the first requests to a peer share one handshake, which goes on when one of them is given up.

mod state;

pub use state::{PoolSettings, PoolStats};
pub(crate) use state::Pooled;

use super::ConnectError;
use crate::runtime::{BoxFuture, SharedRuntime};
use state::{CheckOut, State};
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use tokio::sync::watch;

/// Makes the connections of a pool.
pub(crate) trait Dial<C>: Send + Sync + 'static {
    /// A connection to `to`, within the connect deadline.
    fn dial(&self, to: SocketAddr) -> BoxFuture<'static, Result<C, ConnectError>>;
}

/// How a handshake ended; `None` while it has not.
type Ended = watch::Receiver<Option<Result<(), ConnectError>>>;

/// A pool of connections. Clones are the same pool.
pub(crate) struct Pool<C: Pooled>(Arc<Inner<C>>);

struct Inner<C: Pooled> {
    runtime: SharedRuntime,
    dial: Box<dyn Dial<C>>,
    shared: Mutex<Shared<C>>,
}

struct Shared<C> {
    state: State<C, ConnectError>,
    /// Handshakes that requests wait for together.
    handshakes: BTreeMap<SocketAddr, Ended>,
    /// Whether somebody is there to close what gets old.
    swept: bool,
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
        // A handshake that succeeds and a connection that is closed right after it can follow each other for ever.
        for _ in 0..2 {
            let checked = self.0.with(|shared, now| shared.state.check_out(address, now));
            let ended = match checked {
                CheckOut::Ready { id, connection, widen } => {
                    if widen {
                        self.handshake(address);
                    }
                    return Ok(self.lease(address, id, connection, true));
                }
                CheckOut::Failed(error) => return Err(error),
                CheckOut::Dial if !C::SHARED => {
                    return self.dialed(Dialing { pool: self.0.clone(), address, ended: false }).await;
                }
                CheckOut::Dial => self.handshake(address),
                CheckOut::Join => match self.0.lock().handshakes.get(&address) {
                    Some(ended) => ended.clone(),
                    // It ended between the two looks: look again.
                    None => continue,
                },
            };
            wait(ended).await?;
        }
        Err(ConnectError::Closed)
    }

    /// A new connection to `address`, whatever there is, for one request alone.
    pub(crate) async fn get_new(&self, address: SocketAddr) -> Result<Lease<C>, ConnectError> {
        self.0.lock().state.dialing(address);
        self.dialed(Dialing { pool: self.0.clone(), address, ended: false }).await
    }

    /// Dials for the caller: given up with it.
    async fn dialed(&self, dialing: Dialing<C>) -> Result<Lease<C>, ConnectError> {
        let address = dialing.address;
        let connection = match self.0.dial.dial(address).await {
            Ok(connection) => connection,
            Err(error) => {
                dialing.failed(&error);
                return Err(error);
            }
        };
        let kept = connection.share();
        let id = dialing.succeeded(kept, true);
        Ok(self.lease(address, id, connection, false))
    }

    /// Dials for everybody: nobody's end ends it.
    fn handshake(&self, address: SocketAddr) -> Ended {
        let (report, ended) = watch::channel(None);
        self.0.lock().handshakes.insert(address, ended.clone());
        let dialing = Dialing { pool: self.0.clone(), address, ended: false };
        self.0.runtime.spawn(Box::pin(async move {
            let pool = dialing.pool.clone();
            let outcome = match pool.dial.dial(address).await {
                Ok(connection) => {
                    dialing.succeeded(Some(connection), false);
                    Ok(())
                }
                Err(error) => {
                    dialing.failed(&error);
                    Err(error)
                }
            };
            pool.lock().handshakes.remove(&address);
            report.send_replace(Some(outcome));
        }));
        ended
    }

    fn lease(&self, address: SocketAddr, id: u64, connection: C, reused: bool) -> Lease<C> {
        Lease { pool: self.0.clone(), address, id, connection: Some(connection), reused }
    }
}

async fn wait(mut ended: Ended) -> Result<(), ConnectError> {
    match ended.wait_for(Option::is_some).await {
        Ok(outcome) => outcome.clone().unwrap_or(Err(ConnectError::Closed)),
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

    /// Changes the state, closes what has left it, and sees to it that somebody sweeps.
    fn with<T>(
        self: &Arc<Self>,
        change: impl FnOnce(&mut Shared<C>, std::time::Instant) -> T,
    ) -> T {
        let now = self.runtime.now();
        let mut shared = self.lock();
        let result = change(&mut shared, now);
        let retired = shared.state.retired();
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
    ended: bool,
}

impl<C: Pooled> Dialing<C> {
    fn succeeded(mut self, connection: Option<C>, in_use: bool) -> u64 {
        self.ended = true;
        self.pool.with(|shared, now| shared.state.dialed(self.address, connection, in_use, now))
    }

    fn failed(mut self, error: &ConnectError) {
        self.ended = true;
        self.pool.with(|shared, now| shared.state.dial_failed(self.address, Some(error.clone()), now));
    }
}

impl<C: Pooled> Drop for Dialing<C> {
    fn drop(&mut self) {
        if !self.ended {
            self.pool.with(|shared, now| {
                shared.state.dial_failed(self.address, None, now);
                shared.handshakes.remove(&self.address);
            });
        }
    }
}

/// A connection in the hands of a request. Dropped, it goes back; an exclusive one that was taken out and not given back
/// is gone.
pub(crate) struct Lease<C: Pooled> {
    pool: Arc<Inner<C>>,
    address: SocketAddr,
    id: u64,
    connection: Option<C>,
    reused: bool,
}

impl<C: Pooled> Lease<C> {
    /// Whether the connection was there before the request.
    pub(crate) fn is_reused(&self) -> bool {
        self.reused
    }

    /// The connection, once.
    pub(crate) fn take(&mut self) -> Option<C> {
        self.connection.take()
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
