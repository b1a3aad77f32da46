//! What quinn notes of each connection, as qlog: packets and their losses, round trips, windows.

use quinn::{ConnectionId, QlogConfig, TransportConfig};
use std::fmt;
use std::io::Write;
use std::sync::Arc;
use std::time::Instant;

/// Where a qlog goes.
pub type QlogWriter = Box<dyn Write + Send + Sync>;

type Open = dyn Fn(&str) -> Option<QlogWriter> + Send + Sync;

/// Has every connection noted, each in a log of its own: a JSON text sequence (RFC 7464) of qlog events, with times of the
/// runtime's clock in milliseconds.
///
/// What is written is written by the connection's own task, so the writer should not block for long. It is flushed when
/// the connection is forgotten.
#[derive(Clone)]
pub struct Qlog {
    epoch: Instant,
    open: Arc<Open>,
}

impl fmt::Debug for Qlog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Qlog")
    }
}

impl Qlog {
    /// Times count from `epoch`, so that logs of one process can be laid beside each other. `open` makes the log of this name, or answers with nothing where that connection is not to be noted.
    ///
    /// The name is the id by which the client first called the server, in hex, and the side: `5a…_client`. Both sides of a
    /// connection have the same id.
    pub fn new(epoch: Instant, open: impl Fn(&str) -> Option<QlogWriter> + Send + Sync + 'static) -> Self {
        Self { epoch, open: Arc::new(open) }
    }

    /// Has a connection noted that is about to begin.
    pub(super) fn note(&self, transport: &mut TransportConfig, id: ConnectionId, side: &str) {
        let name = format!("{id}_{side}");
        let Some(writer) = (self.open)(&name) else { return };
        let mut config = QlogConfig::default();
        config.writer(writer).title(Some(name)).start_time(self.epoch);
        transport.qlog_stream(config.into_stream());
    }
}
