//! Answers requests, over QUIC, TCP and gRPC alike.
//!
//! A [`StorageServer`] is given what it serves from (a [`PieceStore`]) and what it serves on (endpoints, listeners).
//! Each connection and each request is a task of its own; what they share is here: the store, the settings, the limits
//! and the state of the shutdown.

mod admission;
mod answering;
mod extension;
#[cfg(feature = "grpc")]
mod grpc;
mod lifecycle;
mod limits;
#[cfg(feature = "quic")]
mod quic;
mod settings;
mod stats;
mod tcp;
#[cfg(feature = "quic")]
mod windows;

pub use limits::{Limit, ServerLimits};
pub use settings::ServerSettings;
pub use stats::{PieceStats, ServerStats};

use crate::canary::planted;
use crate::runtime::SharedRuntime;
use crate::store::PieceStore;
use admission::Admission;
use lifecycle::Lifecycle;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tracing::Span;

/// Serves the pieces of a store. Clones are the same server.
#[derive(Clone)]
pub struct StorageServer {
    shared: Arc<Shared>,
}

struct Shared {
    runtime: SharedRuntime,
    store: Arc<dyn PieceStore>,
    settings: ServerSettings,
    admission: Admission,
    lifecycle: Lifecycle,
    /// The number of the next connection that logs tell of.
    next_connection: AtomicU64,
}

impl Shared {
    /// Within which logs tell of a connection and of all that is asked on it. It takes a number only where it is logged.
    fn connection_span(&self, protocol: &'static str, peer: SocketAddr) -> Span {
        let next = || self.next_connection.fetch_add(1, Ordering::Relaxed);
        tracing::debug_span!("connection", id = next(), %protocol, %peer)
    }
}

impl StorageServer {
    /// A server for the pieces of `store`. It serves nothing before it is given an endpoint or a listener.
    #[must_use]
    pub fn new(runtime: SharedRuntime, store: Arc<dyn PieceStore>, settings: ServerSettings) -> Self {
        let admission = Admission::new(&runtime, settings.limits);
        let (lifecycle, next_connection) = (Lifecycle::new(), AtomicU64::new(0));
        Self { shared: Arc::new(Shared { runtime, store, settings, admission, lifecycle, next_connection }) }
    }

    /// What it has done, and has under way.
    #[must_use]
    pub fn stats(&self) -> ServerStats {
        self.shared.admission.stats()
    }

    /// What it was told.
    #[must_use]
    pub fn settings(&self) -> &ServerSettings {
        &self.shared.settings
    }

    /// Stops: takes no new connections and requests, finishes the answers under way until the shutdown deadline, breaks
    /// off what is left, and closes every connection. Returns when all of it is done.
    ///
    /// Every call waits for the same end; the first one starts it.
    pub async fn shutdown(&self) {
        //= VTX-LIM-005
        let Shared { runtime, lifecycle, settings, .. } = &*self.shared;
        lifecycle.drain();
        if planted("shutdown-breaks-off") {
            lifecycle.abort();
        }
        if runtime.timeout(settings.deadlines.shutdown, lifecycle.ended()).await.is_err() {
            lifecycle.abort();
            lifecycle.ended().await;
        }
    }
}

impl fmt::Debug for StorageServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StorageServer").field("settings", &self.shared.settings).finish_non_exhaustive()
    }
}
