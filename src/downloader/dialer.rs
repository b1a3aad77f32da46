//! Connections to peers.

use super::ConnectError;
#[cfg(feature = "quic")]
use super::Protocol;
use super::pool::Dial;
#[cfg(feature = "grpc")]
use crate::client::GrpcClient;
#[cfg(feature = "quic")]
use crate::client::QuicClient;
use crate::client::TcpClient;
use crate::runtime::{BoxFuture, SharedRuntime};
use crate::session::Deadlines;
use crate::transport::Network;
#[cfg(feature = "quic")]
use crate::transport::quic::{self, AppCode, DialError, QuicEndpoint, QuicSettings};
#[cfg(feature = "tls")]
use crate::transport::tls::{self, ClientTls};
use std::net::SocketAddr;
use std::sync::Arc;

/// Makes connections: whom it trusts, which sockets it uses, how long it tries. Clones share sessions and sockets.
#[derive(Debug, Clone)]
pub struct Dialer {
    runtime: SharedRuntime,
    network: Arc<dyn Network>,
    deadlines: Deadlines,
    #[cfg(feature = "tls")]
    tls: Option<Arc<ClientTls>>,
    #[cfg(feature = "quic")]
    quic: Option<(QuicEndpoint, quic::QuicClient)>,
}

impl Dialer {
    /// A dialer for plain TCP, the deployed profile: it has no way to verify anybody.
    #[must_use]
    pub fn plain(runtime: SharedRuntime, network: Arc<dyn Network>, deadlines: Deadlines) -> Self {
        Self {
            runtime,
            network,
            deadlines,
            #[cfg(feature = "tls")]
            tls: None,
            #[cfg(feature = "quic")]
            quic: None,
        }
    }

    /// A dialer that trusts as `tls` says. Where that demands the identity of servers, TCP is protected by TLS; where it
    /// is insecure, TCP is plain, as deployed peers speak it.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn new(
        runtime: SharedRuntime,
        network: Arc<dyn Network>,
        deadlines: Deadlines,
        tls: Arc<ClientTls>,
    ) -> Self {
        Self { tls: Some(tls), ..Self::plain(runtime, network, deadlines) }
    }

    /// Dials QUIC from `endpoint`, with the same trust. A dialer for plain TCP trusts nobody, and has no QUIC.
    #[cfg(feature = "quic")]
    #[must_use]
    pub fn with_quic(mut self, endpoint: QuicEndpoint, settings: &QuicSettings) -> Self {
        self.quic = self
            .tls
            .as_ref()
            .map(|tls| (endpoint, quic::QuicClient::new(self.runtime.clone(), settings, tls.clone())));
        self
    }

    /// The runtime that everything here runs on.
    #[must_use]
    pub fn runtime(&self) -> &SharedRuntime {
        &self.runtime
    }

    /// How long each step may take.
    #[must_use]
    pub fn deadlines(&self) -> &Deadlines {
        &self.deadlines
    }

    /// A QUIC connection to `to`: its handshake is complete, or a session is resumed and the first requests go early.
    ///
    /// # Errors
    /// [`ConnectError`].
    #[cfg(feature = "quic")]
    pub async fn quic(&self, to: SocketAddr) -> Result<QuicClient, ConnectError> {
        let Some((endpoint, client)) = &self.quic else {
            return Err(ConnectError::Unavailable(Protocol::Quic));
        };
        let dialing = match endpoint.dial(client, to)?.into_early() {
            Ok((connection, early)) => {
                return Ok(QuicClient::early(connection, early, self.runtime.clone(), self.deadlines));
            }
            Err(dialing) => dialing,
        };
        let connection = self.in_time(async { Ok(dialing.established().await?) }).await?;
        Ok(QuicClient::new(connection, self.runtime.clone(), self.deadlines))
    }

    /// A TCP connection to `to`, protected where identity is demanded.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn tcp(&self, to: SocketAddr) -> Result<TcpClient, ConnectError> {
        let stream = self
            .in_time(async {
                let stream = self.network.connect(to).await?;
                //= VTX-SEC-011
                #[cfg(feature = "tls")]
                if let Some(tls) = self.tls.as_ref().filter(|tls| tls.demands_identity()) {
                    return Ok(tls::connect(tls, to, stream).await?);
                }
                Ok(stream)
            })
            .await?;
        Ok(TcpClient::new(stream, self.runtime.clone(), self.deadlines))
    }

    /// A gRPC connection to `to`, protected where identity is demanded.
    ///
    /// # Errors
    /// [`ConnectError`].
    #[cfg(feature = "grpc")]
    pub async fn grpc(&self, to: SocketAddr) -> Result<GrpcClient, ConnectError> {
        self.in_time(async {
            let mut stream = self.network.connect(to).await?;
            if let Some(tls) = self.tls.as_ref().filter(|tls| tls.demands_identity()) {
                stream = tls::connect_http2(tls, to, stream).await?;
            }
            Ok(GrpcClient::new(stream, to, self.runtime.clone(), self.deadlines).await?)
        })
        .await
    }

    async fn in_time<T>(
        &self,
        connecting: impl Future<Output = Result<T, ConnectError>>,
    ) -> Result<T, ConnectError> {
        //= VTX-LIM-004
        let connect = self.deadlines.connect;
        self.runtime.timeout(connect, connecting).await.unwrap_or(Err(ConnectError::TimedOut(connect)))
    }
}

impl Dial<TcpClient> for Dialer {
    fn dial(&self, to: SocketAddr) -> BoxFuture<'static, Result<TcpClient, ConnectError>> {
        let dialer = self.clone();
        Box::pin(async move { dialer.tcp(to).await })
    }
}

#[cfg(feature = "grpc")]
impl Dial<GrpcClient> for Dialer {
    fn dial(&self, to: SocketAddr) -> BoxFuture<'static, Result<GrpcClient, ConnectError>> {
        let dialer = self.clone();
        Box::pin(async move { dialer.grpc(to).await })
    }
}

#[cfg(feature = "quic")]
impl Dial<QuicClient> for Dialer {
    fn dial(&self, to: SocketAddr) -> BoxFuture<'static, Result<QuicClient, ConnectError>> {
        let dialer = self.clone();
        Box::pin(async move { dialer.quic(to).await })
    }
}

#[cfg(feature = "quic")]
impl From<DialError> for ConnectError {
    fn from(error: DialError) -> Self {
        match error {
            DialError::Refused(refusal) => refusal.into(),
            DialError::Connection(error) => error.into(),
            other => std::io::Error::other(other).into(),
        }
    }
}

#[cfg(feature = "quic")]
impl From<quinn::ConnectionError> for ConnectError {
    /// Why a connection has ended that was of no use.
    fn from(error: quinn::ConnectionError) -> Self {
        use quinn::{ConnectionError, TransportErrorCode};
        if let Some(refusal) = tls::Refusal::from_quic(&error) {
            return refusal.into();
        }
        match &error {
            ConnectionError::ConnectionClosed(close)
                if close.error_code == TransportErrorCode::CONNECTION_REFUSED =>
            {
                Self::Limit
            }
            ConnectionError::ApplicationClosed(close)
                if matches!(AppCode::of(close.error_code), Some(AppCode::Limit | AppCode::GoingAway)) =>
            {
                Self::Limit
            }
            _ => Self::Unreachable(Arc::new(quic::ended(error))),
        }
    }
}
