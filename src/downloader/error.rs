//! How a download fails.

use super::{Peer, Protocol};
use crate::client::{Failure, RequestError};
#[cfg(feature = "tls")]
use crate::transport::tls::{self, Refusal};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Why there is no connection to a peer.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The identity of one of the two is not accepted by the other.
    #[cfg(feature = "tls")]
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// This side asks in plain bytes, and the peer speaks TLS there.
    #[error("the peer speaks TLS on this port, expected plain Vortex")]
    Protected,
    /// This side expects TLS, and the peer does not speak it there.
    #[error("the peer does not speak TLS on this port, expected TLS")]
    Unprotected,
    /// The peer takes no more connections: it is at its limits, or shuts down.
    #[error("the peer takes no connection: it is at its limits or shuts down")]
    Limit,
    /// The connect deadline passed. Nobody answers there, or a firewall drops what is sent.
    #[error("no connection within {0:?}: nobody answers there, or a firewall is in the way")]
    TimedOut(Duration),
    /// The network can't reach the peer, or the peer does not speak this protocol there.
    #[error("the peer can't be reached: {0}")]
    Unreachable(Arc<io::Error>),
    /// The connection ended as soon as it was there.
    #[error("the peer closed the connection as soon as it was there")]
    Closed,
    /// Nobody here speaks this protocol: the build lacks it, or it was not set up.
    #[error("{0} is not available here: use another protocol, or a build with it")]
    Unavailable(Protocol),
    /// There are several ways to the peer, and none is open.
    #[error("no protocol reaches the peer{}", Reasons(.0))]
    NoWay(Arc<[(Peer, ConnectError)]>),
}

/// Why each way is closed.
struct Reasons<'a>(&'a [(Peer, ConnectError)]);

impl fmt::Display for Reasons<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(way, error)| write!(f, "; {way}: {error}"))
    }
}

impl ConnectError {
    /// What to go by: the error itself, or, of several ways, that of the first that may be open another time.
    #[must_use]
    pub fn reason(&self) -> &Self {
        let Self::NoWay(ways) = self else { return self };
        let errors = || ways.iter().map(|(_, error)| error);
        errors().find(|error| !error.is_final()).or_else(|| errors().next()).unwrap_or(self)
    }

    /// Whether no later attempt can succeed: one refuses the other, one alone speaks TLS, or the protocol is not there.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            #[cfg(feature = "tls")]
            Self::Refused(_) => true,
            Self::Protected | Self::Unprotected | Self::Unavailable(_) => true,
            Self::NoWay(ways) => ways.iter().all(|(_, error)| error.is_final()),
            Self::Limit | Self::TimedOut(_) | Self::Unreachable(_) | Self::Closed => false,
        }
    }
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        #[cfg(feature = "tls")]
        if let Some(refusal) = Refusal::from_io(&error) {
            return Self::Refused(refusal);
        }
        #[cfg(feature = "tls")]
        if tls::is_not_tls(&error) {
            return Self::Unprotected;
        }
        Self::Unreachable(Arc::new(error))
    }
}

/// Why a piece did not come from a peer.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The request failed.
    #[error(transparent)]
    Request(#[from] RequestError),
}

impl From<Failure> for DownloadError {
    fn from(failure: Failure) -> Self {
        Self::Request(failure.into())
    }
}
