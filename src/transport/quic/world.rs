//! quinn's view of the runtime, and every source of randomness and time it takes from outside.

use super::settings::DatagramSize;
use crate::runtime::{SharedRuntime, Timer};
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncTimer, AsyncUdpSocket, ConnectionId, ConnectionIdGenerator, EndpointConfig, UdpPoller};
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A [`Runtime`](crate::runtime::Runtime) as quinn wants it.
#[derive(Debug, Clone)]
pub struct QuinnRuntime(pub SharedRuntime);

#[derive(Debug)]
struct QuinnTimer(Pin<Box<dyn Timer>>);

impl AsyncTimer for QuinnTimer {
    fn reset(mut self: Pin<&mut Self>, deadline: Instant) {
        self.0.as_mut().reset(deadline);
    }
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(cx)
    }
}

impl quinn::Runtime for QuinnRuntime {
    fn new_timer(&self, deadline: Instant) -> Pin<Box<dyn AsyncTimer>> {
        Box::pin(QuinnTimer(self.0.timer(deadline)))
    }
    fn spawn(&self, task: Pin<Box<dyn Future<Output = ()> + Send>>) {
        self.0.spawn(task);
    }
    fn wrap_udp_socket(&self, _socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "expected a socket from transport::Network"))
    }
    fn now(&self) -> Instant {
        self.0.now()
    }
}

/// The runtime's wall clock, which judges the age of tokens.
pub(super) struct WallClock(pub(super) SharedRuntime);

impl quinn::TimeSource for WallClock {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + self.0.unix_time()
    }
}

/// `N` bytes from the runtime.
pub(super) fn random<const N: usize>(runtime: &SharedRuntime) -> [u8; N] {
    let mut bytes = [0; N];
    runtime.fill_random(&mut bytes);
    bytes
}

/// Connection ids of 8 bytes: enough that nobody guesses one, and the least for each packet to carry.
struct RandomIds(SharedRuntime);

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&random::<8>(&self.0))
    }
    fn cid_len(&self) -> usize {
        8
    }
    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// The first id by which a client calls a server: 20 bytes, as many as there can be.
pub(super) fn initial_id(runtime: &SharedRuntime) -> ConnectionId {
    ConnectionId::new(&random::<20>(runtime))
}

/// The key that seals tokens for address validation.
pub(crate) fn token_key(runtime: &SharedRuntime) -> Arc<ring::hkdf::Prk> {
    Arc::new(ring::hkdf::Salt::new(ring::hkdf::HKDF_SHA256, &[]).extract(&random::<64>(runtime)))
}

/// An endpoint whose ids, keys and generator are drawn from the runtime, and nothing from the system.
pub(super) fn endpoint_config(runtime: &SharedRuntime) -> Result<EndpointConfig, quinn::ConfigError> {
    let reset_key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &random::<64>(runtime));
    let mut config = EndpointConfig::new(Arc::new(reset_key));
    config.rng_seed(Some(random::<32>(runtime)));
    // quinn would take drafts as well.
    //= VTX-QUC-001
    config.supported_versions(vec![1]);
    let ids = runtime.clone();
    config.cid_generator(move || Box::new(RandomIds(ids.clone())));
    // Whatever a peer may find out that the path carries.
    config.max_udp_payload_size(LARGEST_PAYLOAD)?;
    Ok(config)
}

/// Bytes of the largest UDP payload that there is, over IPv6. All of a batch that the kernel has put together are no more.
const LARGEST_PAYLOAD: u16 = 65_527;

/// How many datagrams the kernel takes at once, of the largest size in use on paths to other hosts.
#[derive(Debug, Clone)]
pub(super) struct Segments(Arc<AtomicUsize>);

impl Default for Segments {
    fn default() -> Self {
        Self(Arc::new(AtomicUsize::new(DatagramSize::MINIMUM.segments())))
    }
}

impl Segments {
    /// Counts with datagrams of up to `largest` bytes from now on.
    pub(super) fn fit(&self, largest: DatagramSize) {
        // All connections of a socket have their batches cut alike. Those to other hosts are not to pay for larger datagrams
        // within this one, whose batches the socket takes apart.
        self.0.fetch_min(largest.min(DatagramSize::JUMBO).segments(), Ordering::Relaxed);
    }
}

/// A socket that hands the kernel no more datagrams at once than it takes.
#[derive(Debug)]
pub(super) struct Capped {
    pub(super) socket: Arc<dyn AsyncUdpSocket>,
    pub(super) segments: Segments,
}

impl AsyncUdpSocket for Capped {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.socket.clone().create_io_poller()
    }
    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let most = usize::from(DatagramSize::LOOPBACK.bytes());
        let Some(size) = transmit.segment_size.filter(|_| transmit.contents.len() > most) else {
            return self.socket.try_send(transmit);
        };
        // Where the socket has no room for one of the parts, quinn comes again with all of them. QUIC drops what arrives
        // twice, and within a host, where alone datagrams are so large, there is room as a rule.
        transmit.contents.chunks(size * (most / size).max(1)).try_for_each(|contents| {
            let segment_size = Some(size).filter(|size| *size < contents.len());
            let Transmit { destination, ecn, src_ip, .. } = *transmit;
            self.socket.try_send(&Transmit { destination, ecn, contents, segment_size, src_ip })
        })
    }
    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.socket.poll_recv(cx, buffers, meta)
    }
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
    fn max_transmit_segments(&self) -> usize {
        self.socket.max_transmit_segments().min(self.segments.0.load(Ordering::Relaxed))
    }
    fn max_receive_segments(&self) -> usize {
        // quinn has room for so many payloads of the largest size, of which one is room for any batch.
        1
    }
    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}
