//! A network in memory, for a clock that jumps.
//!
//! Whatever is sent is there at once, and nobody waits for a kernel. So under tokio's paused clock time passes only where every
//! task waits for it: a deadline is met or missed by what the peers do, however slow the machine is, and an hour costs nothing.

use bytes::BytesMut;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use std::collections::{HashMap, VecDeque};
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use vortex_p2p::runtime::BoxFuture;
use vortex_p2p::transport::{ByteStream, Listener, Network};

/// Datagrams that wait for whoever reads a port; those beyond are lost, as in a kernel.
const DATAGRAMS: usize = 4096;

/// Bytes of a stream that wait for its reader, in each direction.
const STREAM: usize = 16 << 10;

/// Its only host, and a port of it that nobody has yet.
pub(crate) const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Ports are given out from here on.
const FIRST: u16 = 10_000;

/// One host, at 127.0.0.1.
#[derive(Debug, Default)]
pub(crate) struct Memory(Arc<Mutex<Ports>>);

#[derive(Debug, Default)]
struct Ports {
    taken: u16,
    datagrams: HashMap<u16, Inbox>,
    listeners: HashMap<u16, mpsc::UnboundedSender<Stream>>,
}

#[derive(Debug, Default)]
struct Inbox {
    waiting: VecDeque<(SocketAddr, Vec<u8>)>,
    reader: Option<Waker>,
}

impl Ports {
    /// A port that nobody had: no test asks for a certain one.
    fn take(&mut self, bind: SocketAddr) -> io::Result<SocketAddr> {
        if bind.port() != 0 {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        self.taken += 1;
        Ok(SocketAddr::new(LOOPBACK.ip(), FIRST + self.taken))
    }
}

#[derive(Debug)]
struct Socket {
    ports: Arc<Mutex<Ports>>,
    local: SocketAddr,
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.ports.lock().unwrap().datagrams.remove(&self.local.port());
    }
}

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
        let mut ports = self.ports.lock().unwrap();
        let Some(inbox) = ports.datagrams.get_mut(&transmit.destination.port()) else { return Ok(()) };
        if inbox.waiting.len() < DATAGRAMS {
            inbox.waiting.push_back((self.local, transmit.contents.to_vec()));
        }
        if let Some(reader) = inbox.reader.take() {
            reader.wake();
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut ports = self.ports.lock().unwrap();
        let inbox = ports.datagrams.get_mut(&self.local.port()).unwrap();
        let mut count = 0;
        for (buffer, meta) in buffers.iter_mut().zip(meta) {
            let Some((addr, datagram)) = inbox.waiting.pop_front() else { break };
            let len = datagram.len().min(buffer.len());
            buffer[..len].copy_from_slice(&datagram[..len]);
            *meta = RecvMeta { addr, len, stride: len, ecn: None, dst_ip: Some(self.local.ip()) };
            count += 1;
        }
        if count > 0 {
            return Poll::Ready(Ok(count));
        }
        inbox.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

/// One direction of a byte stream.
#[derive(Debug, Default)]
struct Direction {
    bytes: BytesMut,
    /// Whether the writer has ended it in order.
    ended: bool,
    /// Whether nobody will read it any more.
    abandoned: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Direction {
    fn wake(&mut self) {
        for waiting in [self.reader.take(), self.writer.take()].into_iter().flatten() {
            waiting.wake();
        }
    }
}

#[derive(Debug, Default)]
struct Both {
    directions: [Direction; 2],
    /// Whether one end has told the other that what it sent is lost.
    reset: bool,
}

/// An end of a byte stream, which ends as TCP does in a kernel: whoever leaves what was sent to it unread, or is sent more
/// once it has gone, resets the connection.
#[derive(Debug)]
struct Stream {
    both: Arc<Mutex<Both>>,
    /// The direction that this end writes.
    writes: usize,
}

impl Stream {
    fn pair() -> (Self, Self) {
        let both = Arc::<Mutex<Both>>::default();
        (Self { both: both.clone(), writes: 0 }, Self { both, writes: 1 })
    }
}

impl ByteStream for Stream {}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut both = self.both.lock().unwrap();
        let reset = both.reset;
        let direction = &mut both.directions[1 - self.writes];
        // What arrived before a reset is there all the same.
        if direction.bytes.is_empty() {
            return match (reset, direction.ended) {
                (true, _) => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
                (false, true) => Poll::Ready(Ok(())),
                (false, false) => {
                    direction.reader = Some(cx.waker().clone());
                    Poll::Pending
                }
            };
        }
        let count = direction.bytes.len().min(into.remaining());
        into.put_slice(&direction.bytes.split_to(count));
        if let Some(writer) = direction.writer.take() {
            writer.wake();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut both = self.both.lock().unwrap();
        let reset = both.reset;
        let direction = &mut both.directions[self.writes];
        if reset || direction.ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if direction.abandoned {
            // It goes out, and is answered by a reset.
            both.reset = true;
            both.directions.iter_mut().for_each(Direction::wake);
            return Poll::Ready(Ok(bytes.len()));
        }
        let count = bytes.len().min(STREAM - direction.bytes.len());
        if count == 0 && !bytes.is_empty() {
            direction.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        direction.bytes.extend_from_slice(&bytes[..count]);
        if let Some(reader) = direction.reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let direction = &mut self.both.lock().unwrap().directions[self.writes];
        direction.ended = true;
        direction.wake();
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut both = self.both.lock().unwrap();
        let unread = &mut both.directions[1 - self.writes];
        unread.abandoned = true;
        let lost = !unread.bytes.is_empty();
        both.reset |= lost;
        both.directions[self.writes].ended = true;
        both.directions.iter_mut().for_each(Direction::wake);
    }
}

struct Accepting {
    accept: mpsc::UnboundedReceiver<Stream>,
    local: SocketAddr,
}

/// Where all byte streams come from.
const CLIENT: SocketAddr = SocketAddr::new(LOOPBACK.ip(), 1);

impl Listener for Accepting {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn ByteStream>, SocketAddr)>> {
        Box::pin(async {
            match self.accept.recv().await {
                Some(stream) => Ok((Box::new(stream) as Box<dyn ByteStream>, CLIENT)),
                None => std::future::pending().await,
            }
        })
    }
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }
}

impl Network for Memory {
    fn udp(&self, bind: SocketAddr) -> BoxFuture<'_, io::Result<Arc<dyn AsyncUdpSocket>>> {
        Box::pin(async move {
            let mut ports = self.0.lock().unwrap();
            let local = ports.take(bind)?;
            ports.datagrams.insert(local.port(), Inbox::default());
            Ok(Arc::new(Socket { ports: self.0.clone(), local }) as Arc<dyn AsyncUdpSocket>)
        })
    }

    fn listen(&self, bind: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let mut ports = self.0.lock().unwrap();
            let local = ports.take(bind)?;
            let (connect, accept) = mpsc::unbounded_channel();
            ports.listeners.insert(local.port(), connect);
            Ok(Box::new(Accepting { accept, local }) as Box<dyn Listener>)
        })
    }

    fn connect(&self, to: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn ByteStream>>> {
        Box::pin(async move {
            let (here, there) = Stream::pair();
            let ports = self.0.lock().unwrap();
            let sent = ports.listeners.get(&to.port()).and_then(|connect| connect.send(there).ok());
            sent.ok_or(io::ErrorKind::ConnectionRefused)?;
            Ok(Box::new(here) as Box<dyn ByteStream>)
        })
    }
}

/// Held against Linux's streams; others may lose what was sent before a reset.
#[cfg(target_os = "linux")]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use vortex_p2p::transport::{SocketSettings, TokioNetwork};

    /// A pair of connected streams of `network`.
    async fn pair(network: &dyn Network) -> (Box<dyn ByteStream>, Box<dyn ByteStream>) {
        let mut listener = network.listen(LOOPBACK).await.unwrap();
        let here = network.connect(listener.local_addr().unwrap()).await.unwrap();
        (here, listener.accept().await.unwrap().0)
    }

    /// All that comes to an end of a stream, and how it ends.
    async fn rest(stream: &mut Box<dyn ByteStream>) -> (Vec<u8>, Option<io::ErrorKind>) {
        let mut bytes = Vec::new();
        let ended = stream.read_to_end(&mut bytes).await;
        (bytes, ended.err().map(|error| error.kind()))
    }

    #[tokio::test]
    async fn streams_end_as_those_of_the_kernel_do() {
        let kernel = TokioNetwork::new(SocketSettings::default());
        for network in [&Memory::default() as &dyn Network, &kernel] {
            // One direction after the other, in order.
            let (mut here, mut there) = pair(network).await;
            here.write_all(b"request").await.unwrap();
            here.shutdown().await.unwrap();
            assert_eq!(rest(&mut there).await, (b"request".to_vec(), None));
            there.write_all(b"answer").await.unwrap();
            drop(there);
            assert_eq!(rest(&mut here).await, (b"answer".to_vec(), None));

            // Whoever goes and leaves something unread: what it said before is there, and no end in order.
            let (mut here, mut there) = pair(network).await;
            here.write_all(b"unread").await.unwrap();
            there.write_all(b"last words").await.unwrap();
            there.read_u8().await.unwrap();
            drop(there);
            assert_eq!(rest(&mut here).await, (b"last words".to_vec(), Some(io::ErrorKind::ConnectionReset)));
            assert_eq!(here.write_all(b"more").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);

            // Whoever is sent more once it has gone: the first goes out, and some later one fails.
            let (mut here, there) = pair(network).await;
            drop(there);
            here.write_all(b"to nobody").await.unwrap();
            while here.write_all(b"again").await.is_ok() {
                tokio::task::yield_now().await;
            }

            // Nobody listens.
            let gone = network.listen(LOOPBACK).await.unwrap().local_addr().unwrap();
            let refused = network.connect(gone).await.err().unwrap();
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        }
    }
}
