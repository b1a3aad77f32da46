//! QUIC: endpoints on quinn whose sockets, tasks, clock and randomness all come from outside.
//!
//! Production and simulation run the same code: an endpoint draws its reset key, its token key, its connection ids and
//! the seed of its generator from the [`Runtime`](crate::runtime::Runtime), in this order and from nowhere else.

mod closing;
mod code;
mod dial;
#[cfg(feature = "qlog")]
mod qlog;
mod settings;
mod window;
mod world;

use closing::Closing;
pub use closing::close;
pub use code::AppCode;
pub(crate) use code::ended;
pub use dial::{DialError, Dialing, EarlyData, QuicClient};
#[cfg(feature = "qlog")]
pub use qlog::{Qlog, QlogWriter};
use settings::PathMtu;
pub use settings::{Congestion, DatagramSize, DatagramSizeError, QuicSettings};
pub(crate) use window::send_window;
pub use world::QuinnRuntime;

use super::Network;
use super::tls::ServerTls;
use crate::runtime::SharedRuntime;
use quinn::crypto::rustls::QuicServerConfig;
use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
#[cfg(feature = "conformance")]
pub(crate) use world::token_key;
#[cfg(not(feature = "conformance"))]
use world::token_key;
use world::{Capped, Segments, WallClock, endpoint_config};

/// The default UDP port of a server.
pub const PORT: u16 = 4006;

/// A socket with its connections, as a client, a server or both.
///
/// One endpoint is one task. To use more cores, bind several to the same address, if the network shares it.
#[derive(Clone)]
pub struct QuicEndpoint {
    endpoint: quinn::Endpoint,
    runtime: SharedRuntime,
    network: Arc<dyn Network>,
    settings: QuicSettings,
    token_key: Arc<ring::hkdf::Prk>,
    answers_early: Arc<AtomicBool>,
    /// What connections are accepted with, each with a transport of its own.
    server: Arc<RwLock<Option<quinn::ServerConfig>>>,
    segments: Segments,
    closing: Closing,
}

impl std::fmt::Debug for QuicEndpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QuicEndpoint").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl QuicEndpoint {
    /// Binds a socket of `network`. Without `server`, connection attempts of others go unanswered.
    ///
    /// # Errors
    /// Those of binding, and [`io::ErrorKind::InvalidInput`] where the provider lacks TLS13_AES_128_GCM_SHA256, which
    /// protects QUIC's first packets.
    pub async fn bind(
        runtime: SharedRuntime,
        network: Arc<dyn Network>,
        bind: SocketAddr,
        settings: QuicSettings,
        server: Option<&ServerTls>,
    ) -> io::Result<Self> {
        let config = endpoint_config(&runtime).map_err(invalid)?;
        let token_key = token_key(&runtime);
        let answers_early = Arc::new(AtomicBool::new(server.is_some_and(|tls| early(&settings, tls))));
        let closing = Closing::default();
        let server = server
            .map(|tls| server_config(&runtime, &settings, &closing, tls, token_key.clone()))
            .transpose()?;
        let segments = Segments::default();
        segments.fit(settings.largest_datagram.unwrap_or_default());
        let socket = socket(&*network, bind, &segments).await?;
        let world = Arc::new(QuinnRuntime(runtime.clone()));
        let endpoint = quinn::Endpoint::new_with_abstract_socket(config, server.clone(), socket, world)?;
        Ok(Self {
            endpoint,
            runtime,
            network,
            settings,
            token_key,
            answers_early,
            server: Arc::new(RwLock::new(server)),
            segments,
            closing,
        })
    }

    /// Begins a connection to `to`. The caller holds the connect deadline (VTX-LIM-004).
    ///
    /// # Errors
    /// [`DialError::Connect`] where this endpoint is closed or has no way to that address.
    pub fn dial(&self, client: &QuicClient, to: SocketAddr) -> Result<Dialing, DialError> {
        client.dial(self, to)
    }

    /// The next connection attempt; none when the endpoint is closed.
    ///
    /// The attempt can be [let in](Self::let_in), refused, or asked to validate its address ([`quinn::Incoming::retry`]).
    pub async fn accept(&self) -> Option<quinn::Incoming> {
        self.endpoint.accept().await
    }

    /// Begins the connection that `incoming` asks for.
    ///
    /// # Errors
    /// Where its first packet is no good.
    pub fn let_in(&self, incoming: quinn::Incoming) -> Result<quinn::Connecting, quinn::ConnectionError> {
        let server = self.server.read().unwrap_or_else(PoisonError::into_inner).clone();
        // Without one, it answers as quinn does where there is none any more.
        let Some(mut config) = server else { return incoming.accept() };
        let most = match self.endpoint.open_connections() < QuicSettings::LARGEST_DATAGRAMS {
            true => DatagramSize::LOOPBACK,
            false => DatagramSize::JUMBO,
        };
        let to = incoming.remote_address();
        let path = PathMtu::new(self.settings.largest_datagram, to, self.network.route_mtu(to), most);
        self.segments.fit(path.largest);
        #[cfg_attr(not(feature = "qlog"), allow(unused_mut, reason = "only a log is added"))]
        let mut transport = self.settings.server_transport(path, &self.closing);
        #[cfg(feature = "qlog")]
        if let Some(qlog) = &self.settings.qlog {
            qlog.note(&mut transport, incoming.orig_dst_cid(), "server");
        }
        config.transport_config(Arc::new(transport));
        incoming.accept_with(Arc::new(config))
    }

    /// Serves as `server` says from now on, or leaves attempts unanswered. Connections that exist are not touched, sessions
    /// of before are forgotten.
    ///
    /// # Errors
    /// As of [`bind`](Self::bind).
    pub fn serve(&self, server: Option<&ServerTls>) -> io::Result<()> {
        let config = server
            .map(|tls| {
                server_config(&self.runtime, &self.settings, &self.closing, tls, self.token_key.clone())
            })
            .transpose()?;
        self.answers_early.store(server.is_some_and(|tls| early(&self.settings, tls)), Ordering::Release);
        self.server.write().unwrap_or_else(PoisonError::into_inner).clone_from(&config);
        self.endpoint.set_server_config(config);
        Ok(())
    }

    /// Within which the send windows of connections are to be kept; they begin with the least.
    pub(crate) fn send_windows(&self) -> RangeInclusive<u64> {
        self.settings.send_windows()
    }

    /// Whether a server may answer before the handshake is complete: early data is on, and no client has to show first who
    /// it is.
    pub fn answers_early(&self) -> bool {
        self.answers_early.load(Ordering::Acquire)
    }

    /// Closes all connections at once and takes no new ones.
    pub fn close(&self, code: AppCode, reason: &[u8]) {
        self.closing.begin();
        self.endpoint.close(code.into(), reason);
    }

    /// Waits until every connection has ended, and its peer has had the time to learn of it.
    pub async fn wait_idle(&self) {
        self.endpoint.wait_idle().await;
    }

    /// The endpoint itself, for whoever has to say what no client or server of this crate would.
    #[cfg(feature = "conformance")]
    pub(crate) fn raw(&self) -> &quinn::Endpoint {
        &self.endpoint
    }

    /// Where this endpoint is bound.
    ///
    /// # Errors
    /// The socket's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// How many connections are open.
    pub fn open_connections(&self) -> usize {
        self.endpoint.open_connections()
    }

    /// Moves to another local address; connections move along where their peers allow it.
    ///
    /// # Errors
    /// Those of binding; the endpoint stays where it is then.
    pub async fn rebind(&self, bind: SocketAddr) -> io::Result<()> {
        self.endpoint.rebind_abstract(socket(&*self.network, bind, &self.segments).await?)
    }
}

async fn socket(
    network: &dyn Network,
    bind: SocketAddr,
    segments: &Segments,
) -> io::Result<Arc<dyn quinn::AsyncUdpSocket>> {
    let socket = network.udp(bind).await?;
    Ok(Arc::new(Capped { socket, segments: segments.clone() }))
}

fn server_config(
    runtime: &SharedRuntime,
    settings: &QuicSettings,
    closing: &Closing,
    server: &ServerTls,
    token_key: Arc<ring::hkdf::Prk>,
) -> io::Result<quinn::ServerConfig> {
    let mut tls = rustls::ServerConfig::clone(server.config());
    // Early data comes before the client's certificate: where one is demanded, there is none. QUIC knows no other
    // sizes than nothing and everything.
    //= VTX-QUC-036
    tls.max_early_data_size = if early(settings, server) { u32::MAX } else { 0 };
    // rustls refuses application protocols in QUIC where the server has none.
    //= VTX-QUC-003
    let tls = QuicServerConfig::try_from(tls).map_err(invalid)?;
    let mut config = quinn::ServerConfig::new(Arc::new(tls), token_key);
    let (each, all) = QuicSettings::INCOMING_BUFFER;
    // For attempts that are not let in by this endpoint but awaited: nobody has asked for the route.
    let transport = settings.server_transport(settings.largest_datagram.unwrap_or_default().into(), closing);
    config
        .transport_config(Arc::new(transport))
        .time_source(Arc::new(WallClock(runtime.clone())))
        //= VTX-QUC-010
        //= VTX-QUC-011
        .migration(true)
        .max_incoming(settings.max_incoming)
        .incoming_buffer_size(each)
        .incoming_buffer_size_total(all);
    Ok(config)
}

fn early(settings: &QuicSettings, server: &ServerTls) -> bool {
    settings.early_data && !server.demands_identity()
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, error)
}
