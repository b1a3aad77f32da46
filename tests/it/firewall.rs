//! A network that swallows datagrams.

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};
use vortex_p2p::runtime::BoxFuture;
use vortex_p2p::transport::{ByteStream, Listener, Network};

/// The kernel's network, behind a firewall that swallows datagrams while it is closed.
#[derive(Debug)]
pub(crate) struct Firewalled {
    pub(crate) network: Arc<dyn Network>,
    pub(crate) closed: Arc<AtomicBool>,
    /// Whether only what comes in is swallowed.
    pub(crate) lets_out: bool,
}

#[derive(Debug)]
struct FirewalledSocket {
    socket: Arc<dyn AsyncUdpSocket>,
    closed: Arc<AtomicBool>,
    lets_out: bool,
}

impl AsyncUdpSocket for FirewalledSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.socket.clone().create_io_poller()
    }
    fn try_send(&self, transmit: &Transmit) -> io::Result<()> {
        if self.closed.load(Relaxed) && !self.lets_out { Ok(()) } else { self.socket.try_send(transmit) }
    }
    fn poll_recv(
        &self,
        cx: &mut Context,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            let received = self.socket.poll_recv(cx, bufs, meta);
            if received.is_pending() || !self.closed.load(Relaxed) {
                return received;
            }
        }
    }
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
    fn max_transmit_segments(&self) -> usize {
        self.socket.max_transmit_segments()
    }
    fn max_receive_segments(&self) -> usize {
        self.socket.max_receive_segments()
    }
    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}

impl Network for Firewalled {
    fn udp(&self, bind: SocketAddr) -> BoxFuture<'_, io::Result<Arc<dyn AsyncUdpSocket>>> {
        Box::pin(async move {
            let socket = self.network.udp(bind).await?;
            Ok(Arc::new(FirewalledSocket { socket, closed: self.closed.clone(), lets_out: self.lets_out })
                as Arc<dyn AsyncUdpSocket>)
        })
    }
    fn listen(&self, bind: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        self.network.listen(bind)
    }
    fn connect(&self, to: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn ByteStream>>> {
        self.network.connect(to)
    }
}
