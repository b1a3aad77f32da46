//! The kernel's sockets, driven by tokio.

use super::{ByteStream, Listener, Network};
use crate::runtime::BoxFuture;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// How sockets are set up.
#[derive(Debug, Clone)]
pub struct SocketSettings {
    /// Connections that may wait to be accepted; the kernel refuses those above.
    ///
    /// 1024: a burst of a whole cluster fits, and the kernel cuts it to its own limit anyway.
    pub backlog: u32,
    /// Silence on a byte stream after which the kernel asks whether the peer is still there.
    ///
    /// 60 s: the protocol's deadlines see to streams in use; this one finds peers that vanished from idle ones.
    pub keepalive: Duration,
    /// Bytes that the kernel holds of what arrives on a byte stream that was connected, before anybody reads it.
    ///
    /// 2 MiB, what arrives in about 2 ms at 10 Gb/s: so that a sender need not stop while the one task that reads hashes,
    /// writes, or waits for its turn. The kernel begins with 128 KiB and enlarges that by itself only where round
    /// trips ask for it. On Linux only, where it is cut to half of what `net.ipv4.tcp_rmem` allows (3 MiB or more), and is no
    /// upper limit; other systems keep their own. It is memory that a peer can fill. Streams that
    /// were accepted carry requests, and keep what the kernel gives them.
    pub stream_buffer: usize,
    /// Buffer of a datagram socket for what arrives and for what leaves, each, in bytes.
    ///
    /// 4 MiB, about 4 ms at 10 Gb/s: an endpoint has one task, and what arrives while that task does other work
    /// would be lost and sent again. The kernel cuts it to its own limit (`net.core.rmem_max`, `wmem_max`).
    pub datagram_buffer: usize,
    /// Lets several datagram sockets bind the same address; the kernel spreads the connections over them.
    ///
    /// Off: a second server on the same port is a mistake unless it was meant.
    pub reuse_port: bool,
}

impl Default for SocketSettings {
    fn default() -> Self {
        Self {
            backlog: 1024,
            keepalive: Duration::from_secs(60),
            stream_buffer: 2 << 20,
            datagram_buffer: 4 << 20,
            reuse_port: false,
        }
    }
}

/// The kernel's network. Every method must be called within a tokio runtime that has its I/O driver on.
///
/// A socket bound to `[::]` takes IPv4 as well, on every system.
#[derive(Debug, Clone, Default)]
pub struct TokioNetwork {
    settings: SocketSettings,
}

impl TokioNetwork {
    /// Sockets set up as `settings` say.
    pub fn new(settings: SocketSettings) -> Self {
        Self { settings }
    }

    fn stream(&self, stream: TcpStream) -> io::Result<Box<dyn ByteStream>> {
        // A request is smaller than a segment and waits for its answer: Nagle's algorithm would only delay it.
        stream.set_nodelay(true)?;
        SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(self.settings.keepalive))?;
        Ok(Box::new(KernelStream(Some(stream))))
    }

    fn tcp_listener(&self, bind: SocketAddr) -> io::Result<TcpListener> {
        let socket = socket(bind, Type::STREAM, Protocol::TCP)?;
        // A server that restarts must not wait for the connections of its predecessor to be forgotten.
        #[cfg(unix)]
        socket.set_reuse_address(true)?;
        socket.bind(&bind.into())?;
        socket.listen(i32::try_from(self.settings.backlog).unwrap_or(i32::MAX))?;
        TcpListener::from_std(socket.into())
    }

    #[cfg(feature = "quic")]
    fn udp_socket(&self, bind: SocketAddr) -> io::Result<std::sync::Arc<dyn quinn::AsyncUdpSocket>> {
        let socket = socket(bind, Type::DGRAM, Protocol::UDP)?;
        #[cfg(unix)]
        socket.set_reuse_port(self.settings.reuse_port)?;
        socket.set_recv_buffer_size(self.settings.datagram_buffer)?;
        socket.set_send_buffer_size(self.settings.datagram_buffer)?;
        socket.bind(&bind.into())?;
        tracing::debug!(
            receive = socket.recv_buffer_size().unwrap_or_default(),
            send = socket.send_buffer_size().unwrap_or_default(),
            "datagram buffers granted by the kernel",
        );
        quinn::Runtime::wrap_udp_socket(&quinn::TokioRuntime, socket.into())
    }
}

/// A nonblocking socket for the family of `bind`; one for IPv6 takes IPv4 as well.
fn socket(bind: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(bind), kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    if bind.is_ipv6() {
        // Some systems refuse; then the socket is for IPv6 only, and still good for that.
        if let Err(error) = socket.set_only_v6(false) {
            tracing::debug!(%error, "the socket takes IPv6 only");
        }
    }
    Ok(socket)
}

impl Network for TokioNetwork {
    #[cfg(feature = "quic")]
    fn udp(&self, bind: SocketAddr) -> BoxFuture<'_, io::Result<std::sync::Arc<dyn quinn::AsyncUdpSocket>>> {
        Box::pin(async move { self.udp_socket(bind) })
    }

    fn listen(&self, bind: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let listener = self.tcp_listener(bind)?;
            Ok(Box::new(TokioListener { network: self.clone(), listener }) as Box<dyn Listener>)
        })
    }

    fn connect(&self, to: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn ByteStream>>> {
        Box::pin(async move {
            let socket = if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            let stream = socket.connect(to).await?;
            #[cfg(target_os = "linux")]
            if let Err(error) = super::low_water::reserve(&stream, self.settings.stream_buffer) {
                tracing::debug!(%error, "the stream keeps the receive buffer that the kernel gave it");
            }
            self.stream(stream)
        })
    }

    #[cfg(all(feature = "quic", target_os = "linux"))]
    fn route_mtu(&self, to: SocketAddr) -> Option<u32> {
        route_mtu(to)
            .inspect_err(|error| tracing::debug!(%to, %error, "the MTU of the route is not known"))
            .ok()
    }
}

/// What the kernel knows about the route to `to`. Connecting a datagram socket only looks the route up.
#[cfg(all(feature = "quic", target_os = "linux"))]
fn route_mtu(to: SocketAddr) -> io::Result<u32> {
    // A mapped address has the route, and the headers, of IPv4.
    let to = SocketAddr::new(to.ip().to_canonical(), to.port());
    let socket = Socket::new(Domain::for_address(to), Type::DGRAM, Some(Protocol::UDP))?;
    socket.connect(&to.into())?;
    let mtu = if to.is_ipv4() { rustix::net::sockopt::ip_mtu } else { rustix::net::sockopt::ipv6_mtu };
    Ok(mtu(&socket)?)
}

struct TokioListener {
    network: TokioNetwork,
    listener: TcpListener,
}

impl Listener for TokioListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn ByteStream>, SocketAddr)>> {
        Box::pin(async move {
            let (stream, from) = self.listener.accept().await?;
            // A dual-stack listener sees IPv4 peers under mapped addresses; limits per address must not tell them apart.
            let from = SocketAddr::new(from.ip().to_canonical(), from.port());
            Ok((self.network.stream(stream)?, from))
        })
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl ByteStream for TcpStream {
    fn socket(&self) -> Option<&TcpStream> {
        Some(self)
    }

    #[cfg(target_os = "linux")]
    fn wake_at(&self, bytes: usize) -> io::Result<()> {
        super::low_water::wake_at(self, bytes)
    }
}

/// A stream of the kernel; without its socket while that is lent.
struct KernelStream(Option<TcpStream>);

impl KernelStream {
    fn here(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        self.0.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl ByteStream for KernelStream {
    fn socket(&self) -> Option<&TcpStream> {
        self.0.as_ref()
    }

    fn lend(&mut self) -> Option<TcpStream> {
        self.0.take()
    }

    fn take_back(&mut self, socket: TcpStream) {
        self.0 = Some(socket);
    }

    #[cfg(target_os = "linux")]
    fn wake_at(&self, bytes: usize) -> io::Result<()> {
        self.0
            .as_ref()
            .map_or_else(|| Err(io::ErrorKind::NotConnected.into()), |socket| socket.wake_at(bytes))
    }
}

impl AsyncRead for KernelStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.here()?.poll_read(cx, into)
    }
}

impl AsyncWrite for KernelStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.here()?.poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.here()?.poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.here()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.here()?.poll_shutdown(cx)
    }
}
