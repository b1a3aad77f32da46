//! A client's connections.

use super::settings::QuicSettings;
use super::world::initial_id;
use super::{AppCode, QuicEndpoint, close};
use crate::canary::planted;
use crate::runtime::SharedRuntime;
use crate::transport::tls::{ClientTls, Refusal, peer_key};
use crate::wire::Escaped;
use bytes::Bytes;
use quinn::crypto::rustls::{NoInitialCipherSuite, QuicClientConfig};
use quinn::{
    ConnectError, Connecting, Connection, ConnectionError, TokenMemoryCache, TokenStore, ZeroRttAccepted,
};
use rustls::pki_types::CertificateDer;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

/// Servers of which tokens for address validation are kept, and tokens for each: as many as there are sessions of, and
/// as many as a server sends at a time.
const TOKENS: (u32, usize) = (2048, 2);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// The identity of one of the two is not accepted.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The connection could not be begun.
    #[error("expected an endpoint that can reach the server: {0}")]
    Connect(#[from] ConnectError),
    /// The connection ended before it was established.
    #[error("the connection ended before it was established: {}", Escaped(&.0.to_string()))]
    Connection(ConnectionError),
    /// The provider cannot protect QUIC's first packets.
    #[error("expected a provider with TLS13_AES_128_GCM_SHA256: {0}")]
    Provider(#[from] NoInitialCipherSuite),
}

impl From<ConnectionError> for DialError {
    fn from(error: ConnectionError) -> Self {
        Refusal::from_quic(&error).map_or(Self::Connection(error), Self::Refused)
    }
}

/// What a client brings to all of its connections: trust, identity, sessions and tokens.
#[derive(Clone)]
pub struct QuicClient {
    tls: Arc<ClientTls>,
    settings: QuicSettings,
    tokens: Arc<TokenMemoryCache>,
    runtime: SharedRuntime,
}

impl fmt::Debug for QuicClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicClient").field("tls", &self.tls).finish_non_exhaustive()
    }
}

impl QuicClient {
    /// A client with the trust and identity of `tls`.
    ///
    /// Keep one for the life of the process: sessions can be resumed only where they are remembered.
    pub fn new(runtime: SharedRuntime, settings: &QuicSettings, tls: Arc<ClientTls>) -> Self {
        Self {
            tls,
            settings: settings.clone(),
            tokens: Arc::new(TokenMemoryCache::new(TOKENS.0, TOKENS.1)),
            runtime,
        }
    }

    pub(super) fn dial(&self, endpoint: &QuicEndpoint, to: SocketAddr) -> Result<Dialing, DialError> {
        let mut tls = self.tls.for_peer(to);
        tls.enable_early_data = self.settings.early_data && !planted("session-forgotten");
        let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
        let id = initial_id(&self.runtime);
        #[cfg_attr(not(feature = "qlog"), allow(unused_mut, reason = "only a log is added"))]
        let mut transport = self.settings.client_transport(&endpoint.closing);
        #[cfg(feature = "qlog")]
        if let Some(qlog) = &self.settings.qlog {
            qlog.note(&mut transport, id, "client");
        }
        config
            .transport_config(Arc::new(transport))
            .initial_dst_cid_provider(Arc::new(move || id))
            .token_store(Arc::new(PeerTokens { peer: peer_key(to), tokens: self.tokens.clone() }));
        let connecting = endpoint.endpoint.connect_with(config, to, &self.tls.name().to_str())?;
        Ok(Dialing { connecting, tls: self.tls.clone() })
    }
}

/// A connection that is being established.
#[derive(Debug)]
pub struct Dialing {
    connecting: Connecting,
    tls: Arc<ClientTls>,
}

impl Dialing {
    /// Waits until the handshake is complete and the server is who it should be.
    ///
    /// # Errors
    /// [`DialError::Refused`] and [`DialError::Connection`]. A server that refuses this client's certificate says so
    /// only later, on the connection: [`Refusal::from_quic`] reads it.
    pub async fn established(self) -> Result<Connection, DialError> {
        let connection = self.connecting.await?;
        verify(&self.tls, &connection)?;
        Ok(connection)
    }

    /// A connection on which early requests can be sent at once; `self` again where no session can be resumed, or early
    /// data is off. Nothing that arrives on it counts before [`EarlyData::accepted`] has returned.
    ///
    /// # Errors
    /// `self`: there is nothing to send early data under.
    pub fn into_early(self) -> Result<(Connection, EarlyData), Self> {
        let Self { connecting, tls } = self;
        match connecting.into_0rtt() {
            Ok((connection, accepted)) => Ok((connection.clone(), EarlyData { connection, accepted, tls })),
            Err(connecting) => Err(Self { connecting, tls }),
        }
    }
}

/// The fate of early data.
pub struct EarlyData {
    connection: Connection,
    accepted: ZeroRttAccepted,
    tls: Arc<ClientTls>,
}

impl fmt::Debug for EarlyData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EarlyData").field("connection", &self.connection).finish_non_exhaustive()
    }
}

impl EarlyData {
    /// Waits until the handshake is complete. `false`: the server has not seen the early requests, and their streams are
    /// void; each goes again on a new stream of the same connection.
    ///
    /// # Errors
    /// As of [`Dialing::established`].
    pub async fn accepted(self) -> Result<bool, DialError> {
        let accepted = self.accepted.await || planted("early-rejection-missed");
        if let Some(error) = self.connection.close_reason() {
            return Err(error.into());
        }
        verify(&self.tls, &self.connection)?;
        Ok(accepted)
    }
}

/// Verifies the server once more. quinn does not tell whether a session was resumed; where it was, the certificates are
/// those of the session's first handshake, and may have expired since.
fn verify(tls: &ClientTls, connection: &Connection) -> Result<(), DialError> {
    let certificates =
        connection.peer_identity().and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
    tls.verify_again(certificates.as_deref().map_or(&[], Vec::as_slice)).map_err(|refusal| {
        close(connection, AppCode::Refused, b"");
        refusal.into()
    })
}

/// The tokens of one server, in the store of all: quinn files them by name, and all servers have the same.
struct PeerTokens {
    peer: String,
    tokens: Arc<TokenMemoryCache>,
}

impl TokenStore for PeerTokens {
    fn insert(&self, _name: &str, token: Bytes) {
        self.tokens.insert(&self.peer, token);
    }
    fn take(&self, _name: &str) -> Option<Bytes> {
        self.tokens.take(&self.peer)
    }
}
