//! The network below the transports: sockets, supplied from outside.
//!
//! Production uses the kernel's; a simulation supplies its own and runs the very same transports on them.

use crate::runtime::BoxFuture;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncWrite};

/// A source of sockets.
pub trait Network: Send + Sync + fmt::Debug + 'static {
    /// Binds a datagram socket for QUIC.
    #[cfg(feature = "quic")]
    fn udp(&self, bind: SocketAddr) -> BoxFuture<'_, io::Result<std::sync::Arc<dyn quinn::AsyncUdpSocket>>>;

    /// Listens for byte streams.
    fn listen(&self, bind: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>>;

    /// Connects a byte stream.
    fn connect(&self, to: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn ByteStream>>>;

    /// How large a packet the route to `to` carries in one piece, in bytes with the headers of IP and UDP, as far as this host
    /// knows: what its own interface carries, or what a router has told it since. Not to wait for; none where nothing is known.
    ///
    /// It is advice: a path may carry less, and nothing breaks then but the search for what it does carry takes longer. From 65,535
    /// on, which is what leads to this host itself, a QUIC server begins with 1452 bytes and tries the largest once.
    #[cfg(feature = "quic")]
    fn route_mtu(&self, to: SocketAddr) -> Option<u32> {
        let _ = to;
        None
    }
}

/// Accepts byte streams.
pub trait Listener: Send {
    /// The next connection. An error concerns one connection, not the listener: accept again.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn ByteStream>, SocketAddr)>>;

    /// Where this listens.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

/// An ordered, reliable byte stream in both directions: TCP, or what a world has in its place.
///
/// `AsyncWrite::poll_shutdown` sends FIN and leaves the other direction open.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {
    /// The kernel's socket, where there is one: `sendfile` needs it.
    #[cfg(feature = "tcp")]
    fn socket(&self) -> Option<&tokio::net::TcpStream> {
        None
    }

    /// Takes the kernel's socket out of the stream, where there is one that may leave: for a thread that blocks, and so that
    /// nobody is woken for it meanwhile. Until it is back ([`take_back`](Self::take_back)), the stream neither reads nor writes:
    /// [`io::ErrorKind::NotConnected`].
    #[cfg(feature = "tcp")]
    fn lend(&mut self) -> Option<tokio::net::TcpStream> {
        None
    }

    /// Puts the socket back that was [lent](Self::lend); one that never was is closed.
    #[cfg(feature = "tcp")]
    fn take_back(&mut self, socket: tokio::net::TcpStream) {
        drop(socket);
    }

    /// Wakes a reader that waits only once `bytes` have arrived, or the stream has ended or failed: one wake-up in place of
    /// one for each segment. With 1, as at the beginning, whatever arrives wakes it.
    ///
    /// It is advice: a stream may wake earlier, and most do nothing about it. A read that is tried takes what there is. Fewer
    /// bytes than `bytes` wake nobody, however long they lie there, so whoever waits for an amount has to know that so
    /// much comes, and sets 1 again before the stream is used for anything else.
    ///
    /// # Errors
    /// The socket's; everything is as it was then.
    fn wake_at(&self, bytes: usize) -> io::Result<()> {
        let _ = bytes;
        Ok(())
    }
}
