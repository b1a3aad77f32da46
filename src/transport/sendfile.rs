//! Content from a file to a socket within the kernel: `sendfile` of Linux, driven by write readiness, or in bursts from a
//! thread that blocks where the other end is quick.
//!
//! It holds for plain byte streams only. QUIC and TLS encrypt in user space, so they have to read.

use super::ByteStream;
use crate::runtime::SharedRuntime;
use rustix::fs::{Advice, fadvise, sendfile};
use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Bytes that the kernel is asked to have in memory ahead of what is sent.
const READ_AHEAD: u64 = 8 << 20;

/// A range of a file on its way into a socket.
///
/// Pages that are in memory go out without blocking. For one that isn't, `sendfile` waits for the disk, and with it the
/// thread. So the kernel is asked early to read ahead, which does not wait; what remains is the first page of a file that
/// nobody has read before. A store whose files are cold as a rule reads them on the blocking pool instead.
#[derive(Debug, Clone)]
pub struct FileSend {
    file: Arc<File>,
    offset: u64,
    end: u64,
    advised: u64,
}

impl FileSend {
    /// Bytes of one system call at most: a socket that takes everything must not keep the thread from other tasks, and
    /// progress deadlines need progress to be seen. A megabyte takes the kernel some 100 µs to copy.
    pub const CHUNK: u64 = 1 << 20;

    /// Bytes of one [burst](Self::burst) at most: others want the thread as well. It has them within 5 ms at 10 Gb/s, and in 160 ms
    /// at the pace below which it ends.
    pub const BURST: u64 = 8 << 20;

    /// How long a [chunk](Self::CHUNK) may take for its reader to count as quick, 50 MB/s. Below that pace there are so few
    /// wake-ups that a thread is worth more than they are.
    pub const QUICK: Duration = Duration::from_millis(20);

    /// `length` bytes of `file` from `offset` on. The file's own position is neither used nor moved, so that many can send
    /// the same file at a time.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] where `offset + length` exceeds 64 bits.
    pub fn new(file: Arc<File>, offset: u64, length: u64) -> io::Result<Self> {
        let end = offset.checked_add(length).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                "expected a range of a file: offset + length overflows",
            )
        })?;
        Ok(Self { file, offset, end, advised: offset })
    }

    /// Bytes that are still to be sent.
    pub fn remaining(&self) -> u64 {
        self.end - self.offset
    }

    /// Waits until `stream` takes bytes, and sends what it takes at once, at most `limit`; how many that were. 0:
    /// everything is sent.
    ///
    /// A future that is dropped has sent nothing, or what [`remaining`](Self::remaining) says.
    ///
    /// # Errors
    /// The stream's and the file's; [`io::ErrorKind::UnexpectedEof`] where the file ends before the range does.
    pub async fn step(&mut self, stream: &TcpStream, limit: u64) -> io::Result<u64> {
        if self.remaining() == 0 {
            return Ok(0);
        }
        // A socket that is always ready would never let other tasks run.
        tokio::task::coop::consume_budget().await;
        self.read_ahead();
        let count = usize::try_from(self.remaining().min(limit).min(Self::CHUNK)).unwrap_or(usize::MAX);
        loop {
            stream.writable().await?;
            match stream.try_io(Interest::WRITABLE, || self.send(stream, count)) {
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                done => return done,
            }
        }
    }

    /// Sends up to `limit` bytes, at most [`BURST`](Self::BURST), from a thread of `runtime` that waits in the kernel wherever the
    /// socket is full, and so costs no wake-up of a task for each part that the other end takes. `None`: `stream` does not lend
    /// its socket, and nothing was sent.
    ///
    /// It ends early where the other end is slow: where it takes nothing for [`QUICK`](Self::QUICK), or a chunk takes longer. So a reader
    /// that stops holds the thread for 20 ms, and one that takes a byte now and then for no more than 16 times that, as the kernel
    /// waits anew for every 64 KiB. [`step`](Self::step) goes on from there.
    ///
    /// `place` is dropped when the thread is done with it, which is later where the future is dropped: `stream` then has lost its
    /// socket, which is closed.
    ///
    /// # Errors
    /// As of [`step`](Self::step); `stream` has lost its socket.
    pub async fn burst(
        &mut self,
        runtime: &SharedRuntime,
        stream: &mut dyn ByteStream,
        limit: u64,
        place: impl Send + 'static,
    ) -> io::Result<Option<Burst>> {
        let Some(socket) = stream.lend() else { return Ok(None) };
        let socket = socket.into_std()?;
        let (mut sending, clock) = (self.clone(), runtime.clone());
        let job = move || {
            let _place = place;
            socket.set_write_timeout(Some(Self::QUICK))?;
            socket.set_nonblocking(false)?;
            let burst = sending.block(&socket, limit.min(Self::BURST), &clock)?;
            socket.set_nonblocking(true)?;
            Ok((sending, socket, burst))
        };
        let done = runtime.blocking(job).await.unwrap_or_else(|lost| Err(io::Error::other(lost)));
        let (sending, socket, burst) = done?;
        stream.take_back(TcpStream::from_std(socket)?);
        *self = sending;
        Ok(Some(burst))
    }

    fn block(
        &mut self,
        socket: &std::net::TcpStream,
        limit: u64,
        clock: &SharedRuntime,
    ) -> io::Result<Burst> {
        let mut burst = Burst { sent: 0, slow: false };
        let end = self.end.min(self.offset.saturating_add(limit));
        while self.offset < end && !burst.slow {
            self.read_ahead();
            let (begun, count) = (clock.now(), (end - self.offset).min(Self::CHUNK));
            match self.send(socket, usize::try_from(count).unwrap_or(usize::MAX)) {
                Ok(sent) => {
                    burst.sent += sent;
                    burst.slow = sent < count || clock.now().saturating_duration_since(begun) > Self::QUICK;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => burst.slow = true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(burst)
    }

    /// One system call for at most `count` bytes, of which there are some.
    fn send(&mut self, socket: impl std::os::fd::AsFd, count: usize) -> io::Result<u64> {
        let mut offset = self.offset;
        match sendfile(socket, &*self.file, Some(&mut offset), count)? as u64 {
            0 => {
                let missing = self.remaining();
                let message =
                    format!("expected {missing} more bytes in the file after offset {}", self.offset);
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, message))
            }
            sent => {
                self.offset += sent;
                Ok(sent)
            }
        }
    }

    /// Asks for the next part of the range once half of the last one is sent.
    fn read_ahead(&mut self) {
        if self.advised >= self.end || self.advised > self.offset.saturating_add(READ_AHEAD / 2) {
            return;
        }
        let length = (self.end - self.advised).min(READ_AHEAD);
        // A hint: a file system that does not take it reads when it has to.
        let _ = fadvise(&*self.file, self.advised, NonZeroU64::new(length), Advice::WillNeed);
        self.advised += length;
    }
}

/// How far a [burst](FileSend::burst) came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Burst {
    /// Bytes that were sent.
    pub sent: u64,
    /// Whether the other end is too slow for another one.
    pub slow: bool,
}

/// Sends `length` bytes of `file` from `offset` on; `length`, when all are sent. Whoever holds a progress deadline drives
/// a [`FileSend`] instead.
///
/// # Errors
/// As of [`FileSend`].
pub async fn send_file(stream: &TcpStream, file: Arc<File>, offset: u64, length: u64) -> io::Result<u64> {
    let mut sending = FileSend::new(file, offset, length)?;
    while sending.step(stream, length).await? != 0 {}
    Ok(length)
}
