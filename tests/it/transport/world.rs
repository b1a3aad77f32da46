//! A runtime whose randomness and date a test decides, and a network that records.

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use vortex_p2p::runtime::{BoxFuture, Runtime, Timer, TokioRuntime};
use vortex_p2p::transport::{ByteStream, Listener, Network};

/// Tokio's clock and tasks; randomness from a seed, and a date that stands still.
#[derive(Debug)]
pub(super) struct World {
    random: Mutex<u64>,
    date: Mutex<Duration>,
}

/// Noon of the first day of 2030.
pub(super) const DATE: Duration = Duration::from_secs(1_893_499_200);

impl World {
    pub(super) fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self { random: Mutex::new(seed), date: Mutex::new(DATE) })
    }

    pub(super) fn pass(&self, time: Duration) {
        *self.date.lock().unwrap() += time;
    }
}

impl Runtime for World {
    fn now(&self) -> Instant {
        TokioRuntime.now()
    }
    fn unix_time(&self) -> Duration {
        *self.date.lock().unwrap()
    }
    fn timer(&self, deadline: Instant) -> Pin<Box<dyn Timer>> {
        TokioRuntime.timer(deadline)
    }
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        TokioRuntime.spawn(task);
    }
    fn spawn_blocking(&self, job: Box<dyn FnOnce() + Send>) {
        TokioRuntime.spawn_blocking(job);
    }
    fn fill_random(&self, buffer: &mut [u8]) {
        let mut state = self.random.lock().unwrap();
        for byte in buffer {
            *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = (*state >> 56) as u8;
        }
    }
}

/// A datagram socket that keeps what is sent, and hands out what it is given.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    sent: Mutex<VecDeque<Vec<u8>>>,
    arriving: Mutex<(VecDeque<Vec<u8>>, Option<Waker>)>,
}

/// Where every datagram comes from.
pub(super) const PEER: &str = "192.0.2.1:4006";

impl Recorder {
    pub(super) fn arrive(&self, datagram: Vec<u8>) {
        let mut arriving = self.arriving.lock().unwrap();
        arriving.0.push_back(datagram);
        if let Some(waker) = arriving.1.take() {
            waker.wake();
        }
    }

    /// The next datagram that is sent.
    pub(super) async fn sent(&self) -> Vec<u8> {
        for _ in 0..1000 {
            if let Some(datagram) = self.sent.lock().unwrap().pop_front() {
                return datagram;
            }
            tokio::task::yield_now().await;
        }
        panic!("nothing is sent");
    }
}

impl AsyncUdpSocket for Recorder {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        #[derive(Debug)]
        struct Always;
        impl UdpPoller for Always {
            fn poll_writable(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(Ok(()))
            }
        }
        Box::pin(Always)
    }
    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.sent.lock().unwrap().push_back(transmit.contents.to_vec());
        Ok(())
    }
    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut arriving = self.arriving.lock().unwrap();
        let Some(datagram) = arriving.0.pop_front() else {
            arriving.1 = Some(cx.waker().clone());
            return Poll::Pending;
        };
        buffers[0][..datagram.len()].copy_from_slice(&datagram);
        meta[0] = RecvMeta {
            addr: PEER.parse().unwrap(),
            len: datagram.len(),
            stride: datagram.len(),
            ..RecvMeta::default()
        };
        Poll::Ready(Ok(1))
    }
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok("192.0.2.2:4006".parse().unwrap())
    }
    fn may_fragment(&self) -> bool {
        false
    }
}

/// A network of one recorder.
#[derive(Debug, Default)]
pub(super) struct Recording(pub(super) Arc<Recorder>);

impl Network for Recording {
    fn udp(&self, _bind: SocketAddr) -> BoxFuture<'_, io::Result<Arc<dyn AsyncUdpSocket>>> {
        Box::pin(async { Ok(self.0.clone() as Arc<dyn AsyncUdpSocket>) })
    }
    fn listen(&self, _bind: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }
    fn connect(&self, _to: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn ByteStream>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }
}
