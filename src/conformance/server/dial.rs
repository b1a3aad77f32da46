//! Connections to the server under test.

use super::quic::{NO_APPLICATION_PROTOCOL, transport_code};
use super::{Inner, Subject};
use crate::conformance::case::{Shown, Stop, blame, fail};
use crate::conformance::lane::Lane;
use crate::conformance::observe::{ObservingClient, Parameters, Seen, parameters};
use crate::transport::ByteStream;
use crate::transport::quic::{QuicEndpoint, QuicSettings};
use crate::transport::tls::{ClientTls, Crypto, Trust};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, ConnectionError, TransportConfig, VarInt};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

/// How a QUIC connection is begun.
pub(super) struct Dial {
    /// The server name; an address is not sent.
    pub(super) name: String,
    /// Application protocols offered.
    pub(super) alpn: Vec<Vec<u8>>,
    /// Flow control credit granted for each stream, in bytes.
    pub(super) window: u32,
    /// Streams of each type granted to the server.
    pub(super) grant: u32,
    /// Whether the connection has an endpoint of its own, which can move.
    pub(super) apart: bool,
}

impl Default for Dial {
    fn default() -> Self {
        Self { name: "d7y".to_owned(), alpn: Vec::new(), window: 16 << 20, grant: 0, apart: false }
    }
}

/// An established QUIC connection. The endpoint lives as long as this does.
pub(super) struct Dialed {
    pub(super) connection: Connection,
    pub(super) parameters: Parameters,
    pub(super) endpoint: QuicEndpoint,
}

impl Subject {
    /// A new TCP connection.
    pub(super) async fn connect(&self) -> Shown<Box<dyn ByteStream>> {
        let Inner { runtime, network, target, .. } = &**self;
        match runtime.timeout(target.waits.soon, network.connect(target.address)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => fail(format!("no connection: {error}")),
            Err(_) => fail("no connection in time"),
        }
    }

    /// A new QUIC connection; where there is none, nothing else can be shown.
    pub(super) async fn dial(&self, dial: Dial) -> Shown<Dialed> {
        match self.try_dial(dial).await? {
            Ok(dialed) => Ok(dialed),
            Err(error) if transport_code(&error) == Some(NO_APPLICATION_PROTOCOL) => {
                blame("VTX-QUC-003", format!("no connection without application protocols: {error}"))
            }
            Err(error) => blame("VTX-QUC-001", format!("no connection: {error}")),
        }
    }

    /// A new QUIC connection, or why there is none.
    pub(super) async fn try_dial(&self, dial: Dial) -> Shown<Result<Dialed, ConnectionError>> {
        let Inner { runtime, target, .. } = &**self;
        let broken = |why: &dyn std::fmt::Display| Stop::Skip(format!("this runner can't dial: {why}"));
        let endpoint = match dial.apart {
            true => self.endpoint().await,
            false => self.endpoint.get_or_try_init(|| self.endpoint()).await.cloned(),
        };
        let endpoint = endpoint.map_err(|error| broken(&error))?;
        let crypto = Crypto::new(runtime.clone());
        let trust = ClientTls::new(&crypto, &Trust::Insecure, None).map_err(|error| broken(&error))?;
        let mut tls = trust.for_peer(target.address);
        tls.alpn_protocols = dial.alpn;
        let tls = QuicClientConfig::try_from(tls).map_err(|error| broken(&error))?;
        let seen = Seen::default();
        let tls = ObservingClient { inner: Arc::new(tls), seen: seen.clone() };
        let mut config = quinn::ClientConfig::new(Arc::new(tls));
        let mut transport = TransportConfig::default();
        transport
            .stream_receive_window(VarInt::from_u32(dial.window))
            .max_concurrent_bidi_streams(VarInt::from_u32(dial.grant))
            .max_concurrent_uni_streams(VarInt::from_u32(dial.grant))
            .keep_alive_interval(Some(target.waits.soon / 2));
        config.transport_config(Arc::new(transport));
        let connecting = endpoint.raw().connect_with(config, target.address, &dial.name);
        let connecting = connecting.map_err(|error| broken(&error))?;
        let connected = match runtime.timeout(target.waits.soon, connecting).await {
            Ok(connected) => connected,
            Err(_) => Err(ConnectionError::TimedOut),
        };
        Ok(connected.map(|connection| {
            let parameters = parameters(&seen).unwrap_or_default();
            Dialed { connection, parameters, endpoint }
        }))
    }

    async fn endpoint(&self) -> std::io::Result<QuicEndpoint> {
        let Inner { runtime, network, target, .. } = &**self;
        let bind = match target.address {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        QuicEndpoint::bind(runtime.clone(), network.clone(), bind, QuicSettings::default(), None).await
    }

    /// A new stream on `connection`.
    #[allow(clippy::disallowed_methods, reason = "it plays a client")]
    pub(super) async fn stream(&self, connection: &Connection) -> Shown<Lane> {
        match self.runtime.timeout(self.target.waits.soon, connection.open_bi()).await {
            Ok(Ok((send, receive))) => Ok(Lane::Quic { send, receive }),
            Ok(Err(error)) => fail(format!("no stream: {error}")),
            Err(_) => blame("VTX-QUC-020", "no stream is granted"),
        }
    }
}
