//! A UDP socket on the switch, as quinn wants it.

use super::link::Packet;
use super::{HostId, Switch};
use crate::faults::lock;
use crate::host::Clock;
use crate::trace::{Hashed, Protocol};
use bytes::Bytes;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use vortex_p2p::runtime::Timer;

/// Datagrams that one system call sends on Linux with segmentation offload, give or take.
const SEGMENTS: usize = 10;

/// A bound UDP socket.
pub(super) struct Socket {
    switch: Arc<Switch>,
    clock: Arc<dyn Clock>,
    host: HostId,
    local: SocketAddr,
    /// How often the host had lost power when this was bound.
    outages: u64,
    timer: Mutex<Option<Pin<Box<dyn Timer>>>>,
}

impl Socket {
    pub(super) fn bind(
        switch: Arc<Switch>,
        clock: Arc<dyn Clock>,
        host: HostId,
        bind: SocketAddr,
    ) -> io::Result<Self> {
        let (port, outages) = switch.bind(Protocol::Udp, host, bind.port(), clock.now())?;
        let local = SocketAddr::new(bind.ip(), port);
        Ok(Socket { switch, clock, host, local, outages, timer: Mutex::new(None) })
    }

    fn key(&self) -> super::PortKey {
        (Protocol::Udp, self.host, self.local.port())
    }

    /// How an IPv6 socket sees an IPv4 peer.
    fn as_seen(&self, address: SocketAddr) -> SocketAddr {
        match (self.local.ip(), address.ip()) {
            (IpAddr::V6(_), IpAddr::V4(ip)) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
            _ => address,
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.switch.unbind(self.key(), self.outages);
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Socket({} on {})", self.local, self.host)
    }
}

/// The switch takes every packet at once; what it can't keep, it drops.
#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let ip = transmit.destination.ip().to_canonical();
        let destination = SocketAddr::new(ip, transmit.destination.port());
        let source = SocketAddr::new(self.host.address_like(ip), self.local.port());
        let now = self.clock.now();
        let contents = Bytes::copy_from_slice(transmit.contents);
        let segment = transmit.segment_size.unwrap_or(contents.len()).max(1);
        let mut rest = contents;
        while !rest.is_empty() {
            let payload = Hashed::new(rest.split_to(segment.min(rest.len())));
            let packet = Packet {
                protocol: Protocol::Udp,
                source,
                destination,
                ecn: transmit.ecn,
                payload,
                copy: false,
            };
            self.switch.send(now, self.host, packet);
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            let now = self.clock.now();
            let mut slots = bufs.iter_mut().zip(meta.iter_mut());
            let room = slots.len();
            let mut count = 0;
            let next = self.switch.receive(now, self.key(), cx.waker(), |packet| {
                let bytes = packet.payload.bytes();
                // A datagram larger than the buffer is cut off, as recvmsg does.
                if let Some((buf, meta)) = slots.next() {
                    let len = bytes.len().min(buf.len());
                    if let (Some(to), Some(from)) = (buf.get_mut(..len), bytes.get(..len)) {
                        to.copy_from_slice(from);
                    }
                    let addr = self.as_seen(packet.source);
                    let dst_ip = Some(self.as_seen(packet.destination).ip());
                    *meta = RecvMeta { addr, len, stride: len, ecn: packet.ecn, dst_ip };
                    count += 1;
                }
                count < room
            });
            if count > 0 {
                return Poll::Ready(Ok(count));
            }
            let Some(next) = next else { return Poll::Pending };
            let deadline = self.clock.instant(next);
            let mut timer = lock(&self.timer);
            let timer = match timer.as_mut() {
                Some(timer) => {
                    timer.as_mut().reset(deadline);
                    timer
                }
                None => timer.insert(self.clock.timer(deadline)),
            };
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }

    fn max_transmit_segments(&self) -> usize {
        SEGMENTS
    }

    fn may_fragment(&self) -> bool {
        // Datagrams too large for the path vanish, so quinn may search for the path's MTU.
        false
    }
}
