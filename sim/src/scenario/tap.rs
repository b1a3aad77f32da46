//! Datagrams by hand: a network that looks at what passes and can keep it back, and a socket without any protocol.

use crate::faults::lock;
use crate::host::Host;
use bytes::Bytes;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use vortex_p2p::runtime::BoxFuture;
use vortex_p2p::transport::{ByteStream, Listener, Network};

/// What has passed a [`Tap`].
#[derive(Debug)]
pub(super) struct Log {
    /// What was sent, in order.
    sent: Mutex<Vec<Bytes>>,
    /// Datagrams that may still leave.
    left: AtomicU64,
    received: AtomicU64,
}

impl Log {
    /// The datagrams that have left.
    pub(super) fn sent(&self) -> Vec<Bytes> {
        lock(&self.sent).clone()
    }

    /// Bytes that have left, and that have come.
    pub(super) fn bytes(&self) -> (u64, u64) {
        let sent = lock(&self.sent).iter().map(|datagram| datagram.len() as u64).sum();
        (sent, self.received.load(Ordering::Relaxed))
    }
}

/// A host's network with a look at its datagrams.
#[derive(Debug)]
pub(super) struct Tap {
    network: Arc<dyn Network>,
    log: Arc<Log>,
}

impl Tap {
    /// The network of `host`, out of which `datagrams` may leave until more are allowed.
    pub(super) fn on(host: &Host, datagrams: u64) -> (Arc<dyn Network>, Arc<Log>) {
        let (sent, left, received) = (Mutex::default(), AtomicU64::new(datagrams), AtomicU64::new(0));
        let log = Arc::new(Log { sent, left, received });
        (Arc::new(Tap { network: host.network(), log: log.clone() }), log)
    }
}

impl Network for Tap {
    fn udp(&self, bind: SocketAddr) -> BoxFuture<'_, io::Result<Arc<dyn AsyncUdpSocket>>> {
        Box::pin(async move {
            let socket = self.network.udp(bind).await?;
            Ok(Arc::new(Tapped { socket, log: self.log.clone() }) as Arc<dyn AsyncUdpSocket>)
        })
    }

    fn listen(&self, bind: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        self.network.listen(bind)
    }

    fn connect(&self, to: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn ByteStream>>> {
        self.network.connect(to)
    }
}

#[derive(Debug)]
struct Tapped {
    socket: Arc<dyn AsyncUdpSocket>,
    log: Arc<Log>,
}

impl AsyncUdpSocket for Tapped {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.socket.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let left = self.log.left.load(Ordering::Relaxed);
        if left == 0 {
            return Ok(());
        }
        self.log.left.store(left - 1, Ordering::Relaxed);
        lock(&self.log.sent).push(Bytes::copy_from_slice(transmit.contents));
        self.socket.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let received = self.socket.poll_recv(cx, buffers, meta);
        if let Poll::Ready(Ok(count)) = received {
            let bytes: usize = meta.iter().take(count).map(|meta| meta.len).sum();
            self.log.received.fetch_add(bytes as u64, Ordering::Relaxed);
        }
        received
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// One at a time, so that what is logged are datagrams.
    fn max_transmit_segments(&self) -> usize {
        1
    }

    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}

/// A socket that sends and receives bare datagrams.
pub(super) struct Raw(Arc<dyn AsyncUdpSocket>);

impl Raw {
    pub(super) async fn bind(host: &Host) -> io::Result<Self> {
        Ok(Raw(host.network().udp(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0)).await?))
    }

    pub(super) fn send(&self, destination: SocketAddr, contents: &[u8]) -> io::Result<()> {
        self.0.try_send(&Transmit { destination, ecn: None, contents, segment_size: None, src_ip: None })
    }

    /// The next datagram.
    pub(super) async fn receive(&self) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; 2048];
        let mut meta = [RecvMeta::default()];
        std::future::poll_fn(|cx| self.0.poll_recv(cx, &mut [IoSliceMut::new(&mut buffer)], &mut meta))
            .await?;
        buffer.truncate(meta.first().map_or(0, |meta| meta.len));
        Ok(buffer)
    }
}
