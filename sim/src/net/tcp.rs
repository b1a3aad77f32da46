//! TCP on the switch: one smoltcp stack per host, from its boot to its crash.
//!
//! What a crash leaves of a connection is what is left of it outside: nothing. The peer keeps retransmitting until it
//! gives up, or until the host is back and answers with a reset.

use super::link::Packet;
use super::{HostId, STACK, Switch};
use crate::faults::lock;
use crate::host::Clock;
use crate::rng::Rng;
use crate::trace::{Hashed, Protocol};
use bytes::Bytes;
use smoltcp::iface::{Config, Interface, PollIngressSingleResult, PollResult, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{CongestionControl, RecvError, Socket, SocketBuffer, State};
use smoltcp::time::{Duration as StackDuration, Instant as StackInstant};
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr, IpListenEndpoint, IpProtocol};
use smoltcp::wire::{Ipv4Packet, Ipv6Packet, TcpPacket, TcpSeqNumber};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use vortex_p2p::runtime::{BoxFuture, Timer};
use vortex_p2p::transport::{ByteStream, Listener};

/// Bytes that a socket buffers in each direction, and with that the largest window.
const BUFFER: usize = 1 << 20;
/// The largest IP packet that the stack sends.
const MTU: usize = 1_500;
/// How long a stack retransmits before it gives up. Linux takes 15 minutes by default; the protocol's own deadlines are
/// far below either.
const GIVES_UP: StackDuration = StackDuration::from_secs(120);
/// Connections that wait to be accepted, per listener.
const BACKLOG: usize = 1_024;

/// The stack of one host.
#[derive(Clone)]
pub(super) struct Stack(Arc<Shared>);

struct Shared {
    switch: Arc<Switch>,
    clock: Arc<dyn Clock>,
    host: HostId,
    core: Mutex<Core>,
}

struct Core {
    interface: Interface,
    sockets: SocketSet<'static>,
    listeners: BTreeMap<u16, Queue>,
    /// Sockets whose owner is gone and that still have to say goodbye.
    lingering: Vec<SocketHandle>,
    received: VecDeque<Bytes>,
    sent: Sent,
    driver: Option<Waker>,
}

/// The end of each flow's data so far, so that what is sent again is counted.
type Sent = BTreeMap<(SocketAddr, SocketAddr), TcpSeqNumber>;

/// Whether a segment carries data that was sent before.
fn again(sent: &mut Sent, segment: &Segment) -> bool {
    let end = segment.sequence + segment.length;
    let known = sent.entry(segment.flow).or_insert(segment.sequence);
    if segment.syn {
        *known = end;
    }
    if segment.length > 0 && *known >= end {
        return true;
    }
    *known = (*known).max(end);
    false
}

/// A listening port.
struct Queue {
    /// The socket that takes the next connection: in smoltcp, a listening socket becomes the connection.
    open: SocketHandle,
    /// Connections whose handshake is under way.
    opening: Vec<SocketHandle>,
    ready: VecDeque<SocketHandle>,
    acceptor: Option<Waker>,
}

impl fmt::Debug for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stack({})", self.0.host)
    }
}

impl Stack {
    /// Starts the stack; `random` gives the initial sequence numbers.
    pub(super) fn start(
        switch: Arc<Switch>,
        clock: Arc<dyn Clock>,
        host: HostId,
        mut random: Rng,
    ) -> io::Result<Self> {
        let now = clock.now();
        switch.bind(Protocol::Tcp, host, STACK, now)?;
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = random.bits();
        let mut wire =
            Wire { switch: &switch, host, now, received: &mut VecDeque::new(), sent: &mut BTreeMap::new() };
        let mut interface = Interface::new(config, &mut wire, stack_time(now));
        interface.update_ip_addrs(|addresses| {
            // Two addresses are what smoltcp has room for by default.
            let _ = addresses.push(IpCidr::new(host.ipv4().into(), 8));
            let _ = addresses.push(IpCidr::new(host.ipv6().into(), 64));
        });
        // Addresses that a NAT lends are off the link; there is one wire all the same, so any gateway will do.
        let routes = interface.routes_mut();
        let _ = routes.add_default_ipv4_route(host.ipv4());
        let _ = routes.add_default_ipv6_route(host.ipv6());
        let core = Core {
            interface,
            sockets: SocketSet::new(Vec::new()),
            listeners: BTreeMap::new(),
            lingering: Vec::new(),
            received: VecDeque::new(),
            sent: Sent::new(),
            driver: None,
        };
        let stack = Stack(Arc::new(Shared { switch, clock, host, core: Mutex::new(core) }));
        let mut driver = Driver { stack: stack.clone(), timer: None };
        stack.0.clock.spawn(Box::pin(std::future::poll_fn(move |cx| driver.poll(cx))));
        Ok(stack)
    }

    /// Listens on a port.
    pub(super) fn listen(&self, bind: SocketAddr) -> io::Result<Accepting> {
        let port = match bind.port() {
            0 => self.0.switch.ephemeral(self.0.host)?,
            port => port,
        };
        let mut core = lock(&self.0.core);
        if core.listeners.contains_key(&port) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let open = core.listening(port)?;
        let queue = Queue { open, opening: Vec::new(), ready: VecDeque::new(), acceptor: None };
        core.listeners.insert(port, queue);
        Ok(Accepting { stack: self.clone(), local: SocketAddr::new(bind.ip(), port) })
    }

    /// Connects to `to`.
    pub(super) async fn connect(&self, to: SocketAddr) -> io::Result<Stream> {
        let to = SocketAddr::new(to.ip().to_canonical(), to.port());
        let port = self.0.switch.ephemeral(self.0.host)?;
        let stream = {
            let mut core = lock(&self.0.core);
            let Core { interface, sockets, .. } = &mut *core;
            let mut socket = socket();
            let local = SocketAddr::new(self.0.host.address_like(to.ip()), port);
            socket
                .connect(interface.context(), to, local)
                .map_err(|error| io::Error::new(io::ErrorKind::AddrNotAvailable, error.to_string()))?;
            let handle = sockets.add(socket);
            core.kick();
            Stream { stack: self.clone(), handle, closed: false }
        };
        std::future::poll_fn(|cx| {
            let mut core = lock(&self.0.core);
            let socket = core.sockets.get_mut::<Socket>(stream.handle);
            match socket.state() {
                State::SynSent | State::SynReceived => {
                    socket.register_send_waker(cx.waker());
                    Poll::Pending
                }
                // smoltcp says no more than "closed": a refusal is what makes it so at this stage, unless it waited.
                State::Closed => Poll::Ready(Err(io::Error::from(io::ErrorKind::ConnectionRefused))),
                _ => Poll::Ready(Ok(())),
            }
        })
        .await?;
        Ok(stream)
    }
}

impl Core {
    fn kick(&mut self) {
        if let Some(driver) = self.driver.take() {
            driver.wake();
        }
    }

    fn listening(&mut self, port: u16) -> io::Result<SocketHandle> {
        let mut socket = socket();
        socket
            .listen(IpListenEndpoint { addr: None, port })
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error.to_string()))?;
        Ok(self.sockets.add(socket))
    }

    /// Moves connections towards their acceptor, and puts a fresh socket where a connection took the listening one.
    fn serve_listeners(&mut self) {
        let ports: Vec<u16> = self.listeners.keys().copied().collect();
        for port in ports {
            let Some(queue) = self.listeners.get_mut(&port) else { continue };
            let sockets = &mut self.sockets;
            let taken = sockets.get::<Socket>(queue.open).state() != State::Listen;
            if taken {
                queue.opening.push(queue.open);
            }
            let mut dead = Vec::new();
            let Queue { opening, ready, acceptor, .. } = queue;
            opening.retain(|&handle| match sockets.get::<Socket>(handle).state() {
                State::SynReceived => true,
                // The handshake was given up: smoltcp lets the socket listen again, and there is one for that.
                State::Listen | State::Closed => {
                    dead.push(handle);
                    false
                }
                _ => {
                    if ready.len() < BACKLOG {
                        ready.push_back(handle);
                    } else {
                        dead.push(handle);
                    }
                    false
                }
            });
            if !ready.is_empty()
                && let Some(acceptor) = acceptor.take()
            {
                acceptor.wake();
            }
            for handle in dead {
                self.sockets.remove(handle);
            }
            if taken
                && let Ok(open) = self.listening(port)
                && let Some(queue) = self.listeners.get_mut(&port)
            {
                queue.open = open;
            }
        }
    }

    fn bury(&mut self) {
        let sockets = &mut self.sockets;
        self.lingering.retain(|&handle| {
            let done = !sockets.get::<Socket>(handle).is_open();
            if done {
                sockets.remove(handle);
            }
            !done
        });
    }
}

fn socket() -> Socket<'static> {
    let buffer = || SocketBuffer::new(vec![0; BUFFER]);
    let mut socket = Socket::new(buffer(), buffer());
    socket.set_congestion_control(CongestionControl::Cubic);
    socket.set_nagle_enabled(false);
    socket.set_timeout(Some(GIVES_UP));
    socket
}

fn stack_time(now: Duration) -> StackInstant {
    StackInstant::from_micros(i64::try_from(now.as_micros()).unwrap_or(i64::MAX))
}

/// What moves segments between the stack and the switch.
struct Driver {
    stack: Stack,
    timer: Option<Pin<Box<dyn Timer>>>,
}

impl Driver {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let shared = &self.stack.0;
        loop {
            let now = shared.clock.now();
            let mut guard = lock(&shared.core);
            let core = &mut *guard;
            let received = &mut core.received;
            let arrives =
                shared.switch.receive(now, (Protocol::Tcp, shared.host, STACK), cx.waker(), |packet| {
                    received.push_back(packet.payload.bytes().clone());
                    true
                });
            let time = stack_time(now);
            loop {
                let mut wire = Wire {
                    switch: &shared.switch,
                    host: shared.host,
                    now,
                    received: &mut core.received,
                    sent: &mut core.sent,
                };
                match core.interface.poll_ingress_single(time, &mut wire, &mut core.sockets) {
                    PollIngressSingleResult::None => break,
                    PollIngressSingleResult::PacketProcessed => {}
                    PollIngressSingleResult::SocketStateChanged => core.serve_listeners(),
                }
            }
            core.interface.poll_maintenance(time);
            let mut wire = Wire {
                switch: &shared.switch,
                host: shared.host,
                now,
                received: &mut core.received,
                sent: &mut core.sent,
            };
            while core.interface.poll_egress(time, &mut wire, &mut core.sockets)
                == PollResult::SocketStateChanged
            {}
            core.bury();
            core.driver = Some(cx.waker().clone());
            let due = core.interface.poll_at(time, &core.sockets).map(|at| {
                // Never in the past, or this would not end.
                Duration::from_micros(u64::try_from(at.total_micros()).unwrap_or(0)).max(now)
            });
            drop(guard);
            let Some(next) = [arrives, due].into_iter().flatten().min() else { return Poll::Pending };
            let deadline = shared.clock.instant(next);
            let timer = match self.timer.as_mut() {
                Some(timer) => {
                    timer.as_mut().reset(deadline);
                    timer
                }
                None => self.timer.insert(shared.clock.timer(deadline)),
            };
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

/// The stack's end of the wire during one poll.
struct Wire<'a> {
    switch: &'a Switch,
    host: HostId,
    now: Duration,
    received: &'a mut VecDeque<Bytes>,
    sent: &'a mut Sent,
}

struct Inbound(Bytes);

impl RxToken for Inbound {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, consume: F) -> R {
        consume(&self.0)
    }
}

struct Outbound<'a> {
    switch: &'a Switch,
    host: HostId,
    now: Duration,
    sent: &'a mut Sent,
}

impl TxToken for Outbound<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, fill: F) -> R {
        let mut bytes = vec![0; len];
        let result = fill(&mut bytes);
        // What is not TCP (an ICMP complaint) has no place in this network.
        if let Some(segment) = Segment::parse(&bytes) {
            if again(self.sent, &segment) {
                self.switch.count_retransmission();
            }
            let (source, destination) = segment.flow;
            let payload = Hashed::new(bytes.into());
            let packet =
                Packet { protocol: Protocol::Tcp, source, destination, ecn: None, payload, copy: false };
            self.switch.send(self.now, self.host, packet);
        }
        result
    }
}

impl Device for Wire<'_> {
    type RxToken<'t>
        = Inbound
    where
        Self: 't;
    type TxToken<'t>
        = Outbound<'t>
    where
        Self: 't;

    fn receive(&mut self, _: StackInstant) -> Option<(Inbound, Outbound<'_>)> {
        let bytes = self.received.pop_front()?;
        Some((
            Inbound(bytes),
            Outbound { switch: self.switch, host: self.host, now: self.now, sent: self.sent },
        ))
    }

    fn transmit(&mut self, _: StackInstant) -> Option<Outbound<'_>> {
        Some(Outbound { switch: self.switch, host: self.host, now: self.now, sent: self.sent })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = MTU;
        capabilities
    }
}

/// What the network needs to know of a TCP segment.
struct Segment {
    flow: (SocketAddr, SocketAddr),
    sequence: TcpSeqNumber,
    syn: bool,
    length: usize,
}

impl Segment {
    /// Reads the segment in an IP packet; nothing where there is none.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let (source, destination, protocol, segment): (IpAddress, IpAddress, _, _) = match bytes.first()? >> 4
        {
            4 => {
                let ip = Ipv4Packet::new_checked(bytes).ok()?;
                (ip.src_addr().into(), ip.dst_addr().into(), ip.next_header(), ip.payload())
            }
            _ => {
                let ip = Ipv6Packet::new_checked(bytes).ok()?;
                (ip.src_addr().into(), ip.dst_addr().into(), ip.next_header(), ip.payload())
            }
        };
        if protocol != IpProtocol::Tcp {
            return None;
        }
        let tcp = TcpPacket::new_checked(segment).ok()?;
        let source = SocketAddr::new(source.into(), tcp.src_port());
        let destination = SocketAddr::new(destination.into(), tcp.dst_port());
        let (sequence, syn, length) = (tcp.seq_number(), tcp.syn(), tcp.payload().len());
        Some(Segment { flow: (source, destination), sequence, syn, length })
    }
}

/// A listening socket.
pub(super) struct Accepting {
    stack: Stack,
    local: SocketAddr,
}

impl Listener for Accepting {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn ByteStream>, SocketAddr)>> {
        Box::pin(std::future::poll_fn(|cx| {
            let mut core = lock(&self.stack.0.core);
            let Core { listeners, sockets, .. } = &mut *core;
            let Some(queue) = listeners.get_mut(&self.local.port()) else {
                return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
            };
            while let Some(handle) = queue.ready.pop_front() {
                match sockets.get::<Socket>(handle).remote_endpoint() {
                    Some(peer) => {
                        let stream = Stream { stack: self.stack.clone(), handle, closed: false };
                        let peer = SocketAddr::new(peer.addr.into(), peer.port);
                        return Poll::Ready(Ok((Box::new(stream) as Box<dyn ByteStream>, peer)));
                    }
                    // Reset before it was accepted.
                    None => {
                        sockets.remove(handle);
                    }
                }
            }
            queue.acceptor = Some(cx.waker().clone());
            Poll::Pending
        }))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }
}

impl Drop for Accepting {
    fn drop(&mut self) {
        let mut core = lock(&self.stack.0.core);
        let Some(queue) = core.listeners.remove(&self.local.port()) else { return };
        for handle in std::iter::once(queue.open).chain(queue.opening).chain(queue.ready) {
            core.sockets.get_mut::<Socket>(handle).abort();
            core.lingering.push(handle);
        }
        core.kick();
    }
}

/// A connection.
pub(super) struct Stream {
    stack: Stack,
    handle: SocketHandle,
    /// This side sends nothing more.
    closed: bool,
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut core = lock(&self.stack.0.core);
        let socket = core.sockets.get_mut::<Socket>(self.handle);
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        match socket.recv_slice(buf.initialize_unfilled()) {
            Ok(0) => {
                socket.register_recv_waker(cx.waker());
                Poll::Pending
            }
            Ok(count) => {
                buf.advance(count);
                // The window has opened.
                core.kick();
                Poll::Ready(Ok(()))
            }
            Err(RecvError::Finished) => Poll::Ready(Ok(())),
            Err(RecvError::InvalidState) => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let mut core = lock(&self.stack.0.core);
        let socket = core.sockets.get_mut::<Socket>(self.handle);
        match socket.send_slice(bytes) {
            Ok(0) if !bytes.is_empty() => {
                socket.register_send_waker(cx.waker());
                Poll::Pending
            }
            Ok(count) => {
                core.kick();
                Poll::Ready(Ok(count))
            }
            Err(_) => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.closed = true;
        let mut core = lock(&self.stack.0.core);
        core.sockets.get_mut::<Socket>(self.handle).close();
        core.kick();
        Poll::Ready(Ok(()))
    }
}

impl ByteStream for Stream {}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut core = lock(&self.stack.0.core);
        let socket = core.sockets.get_mut::<Socket>(self.handle);
        // As the kernel does: what was received and never read turns the goodbye into a reset.
        if socket.can_recv() {
            socket.abort();
        } else {
            socket.close();
        }
        core.lingering.push(self.handle);
        core.kick();
    }
}
