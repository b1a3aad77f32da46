//! Content from a file to a socket within the kernel: `sendfile` of Linux, driven by write readiness.
//!
//! It holds for plain byte streams only. QUIC and TLS encrypt in user space, so they have to read.

use rustix::fs::{Advice, fadvise, sendfile};
use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::sync::Arc;
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Bytes that the kernel is asked to have in memory ahead of what is sent.
const READ_AHEAD: u64 = 8 << 20;

/// A range of a file on its way into a socket.
///
/// Pages that are in memory go out without blocking. For one that isn't, `sendfile` waits for the disk, and with it the
/// thread. So the kernel is asked early to read ahead, which does not wait; what remains is the first page of a file that
/// nobody has read before. A store whose files are cold as a rule reads them on the blocking pool instead.
#[derive(Debug)]
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
        let sent = loop {
            stream.writable().await?;
            let mut offset = self.offset;
            let sending = || Ok(sendfile(stream, &*self.file, Some(&mut offset), count)?);
            match stream.try_io(Interest::WRITABLE, sending) {
                Ok(sent) => break sent,
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(error) => return Err(error),
            }
        };
        if sent == 0 {
            let missing = self.remaining();
            let message = format!("expected {missing} more bytes in the file after offset {}", self.offset);
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
        }
        let sent = sent as u64;
        self.offset += sent;
        Ok(sent)
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
