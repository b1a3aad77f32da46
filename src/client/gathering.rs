//! How much content gathers in the kernel before the task that reads it is woken.
//!
//! A wake-up costs about as much as copying 64 KiB, and a fast path has one for each segment. So a reader waits for what is
//! left of the content, or for a part of it, as long as that comes soon.

use crate::transport::ByteStream;
use std::io;
use std::time::{Duration, Instant};

/// Bytes that are waited for at most: one read.
const MOST: usize = super::tcp::CONTENT_READ;

/// Bytes that are waited for at least; for fewer, the system call that says so is not worth it.
const LEAST: usize = 64 << 10;

/// How long content may lie in the kernel, at the pace at which it came so far.
///
/// 20 ms: whoever watches the progress of an answer judges by seconds, and [`MOST`] comes within it from 13 MB/s on. On slower
/// paths there are few wake-ups anyway.
const SOON: Duration = Duration::from_millis(20);

/// The wake-ups of one connection.
#[derive(Debug)]
pub(super) struct Gathering {
    /// Since when `bytes` have come.
    since: Instant,
    bytes: usize,
    /// Bytes that come within [`SOON`].
    soon: usize,
    /// What the stream was told last.
    mark: usize,
}

impl Gathering {
    /// On a stream that wakes its reader for whatever arrives, and of whose pace nothing is known.
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, bytes: 0, soon: 0, mark: 1 }
    }

    /// From now on content is waited for.
    pub(super) fn begin(&mut self, now: Instant) {
        (self.since, self.bytes) = (now, 0);
    }

    /// Content has come. It is judged in parts that are long enough to say something: a burst of segments has no pace.
    pub(super) fn came(&mut self, bytes: usize, now: Instant) {
        self.bytes += bytes;
        let elapsed = now.saturating_duration_since(self.since);
        if self.bytes >= MOST || elapsed >= SOON {
            let pace = self.bytes as f64 / elapsed.as_secs_f64().max(1e-6);
            self.soon = (pace * SOON.as_secs_f64()) as usize;
            self.begin(now);
        }
    }

    /// Has `stream` wake its reader when as much has come as is worth it; `left` bytes of content are sure to come, unless
    /// the stream ends or the peer stops, which a deadline sees to.
    ///
    /// # Errors
    /// The stream's, where it waits for too much from now on.
    pub(super) fn wait_for_much(&mut self, stream: &dyn ByteStream, left: usize) -> io::Result<()> {
        let mark = left.min(self.soon).min(MOST);
        match self.set(stream, if mark < LEAST { 1 } else { mark }) {
            // It wakes its reader for everything, as streams do.
            Err(_) if self.mark == 1 => Ok(()),
            set => set,
        }
    }

    /// Has `stream` wake its reader for whatever arrives.
    ///
    /// # Errors
    /// The stream's: it may not wake its reader when it should.
    pub(super) fn wait_for_anything(&mut self, stream: &dyn ByteStream) -> io::Result<()> {
        self.set(stream, 1)
    }

    fn set(&mut self, stream: &dyn ByteStream, mark: usize) -> io::Result<()> {
        if mark != self.mark {
            stream.wake_at(mark)?;
            self.mark = mark;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::Pin;
    use std::sync::Mutex;
    use std::task::{Context, Poll};
    use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

    /// A stream that is only told.
    #[derive(Default)]
    struct Told {
        marks: Mutex<Vec<usize>>,
        refuses: bool,
    }

    impl ByteStream for Told {
        fn wake_at(&self, bytes: usize) -> io::Result<()> {
            if self.refuses {
                return Err(io::ErrorKind::Unsupported.into());
            }
            self.marks.lock().unwrap().push(bytes);
            Ok(())
        }
    }
    impl AsyncRead for Told {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }
    impl AsyncWrite for Told {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Pending
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    fn begun() -> (Gathering, Instant) {
        #[allow(clippy::disallowed_methods, reason = "any begin of time will do")]
        let now = Instant::now();
        (Gathering::new(now), now)
    }

    /// Content that comes in reads of `read` bytes at `rate` bytes a second, all that is left always being plenty; what the
    /// stream was told.
    fn at_pace(gathering: &mut Gathering, now: &mut Instant, rate: usize, read: usize) -> Vec<usize> {
        let told = Told::default();
        for _ in 0..200 {
            gathering.wait_for_much(&told, 1 << 30).unwrap();
            *now += Duration::from_secs_f64(read as f64 / rate as f64);
            gathering.came(read, *now);
        }
        told.marks.into_inner().unwrap()
    }

    #[test]
    fn what_comes_slowly_is_not_waited_for() {
        let (mut gathering, mut now) = begun();
        for (rate, read) in [(1_000, 1), (100_000, 1460), (3_000_000, 1460), (3_000_000, 64 << 10)] {
            assert!(at_pace(&mut gathering, &mut now, rate, read).is_empty(), "{rate}");
        }
    }

    #[test]
    fn what_comes_fast_is_waited_for_and_no_longer_than_it_is_fast() {
        let (mut gathering, mut now) = begun();
        assert_eq!(at_pace(&mut gathering, &mut now, 1 << 30, 64 << 10), [MOST]);
        // What comes within 20 ms.
        let marks = at_pace(&mut gathering, &mut now, 5_000_000, 50_000);
        assert!(marks.iter().all(|mark| (99_000..=101_000).contains(mark)) && !marks.is_empty(), "{marks:?}");
        assert_eq!(at_pace(&mut gathering, &mut now, 100_000, 1460), [1]);
    }

    #[test]
    fn no_more_is_waited_for_than_is_left() {
        let (mut gathering, mut now) = begun();
        at_pace(&mut gathering, &mut now, 1 << 30, 64 << 10);
        let told = Told::default();
        for left in [MOST + 1, MOST, MOST - 1, LEAST, LEAST - 1, 1] {
            gathering.wait_for_much(&told, left).unwrap();
        }
        assert_eq!(*told.marks.lock().unwrap(), [MOST - 1, LEAST, 1]);
        gathering.wait_for_much(&told, MOST).unwrap();
        gathering.wait_for_anything(&told).unwrap();
        gathering.wait_for_anything(&told).unwrap();
        assert_eq!(told.marks.lock().unwrap()[3..], [MOST, 1]);
    }

    #[test]
    fn the_pause_before_content_is_not_its_pace() {
        let (mut gathering, mut now) = begun();
        now += Duration::from_secs(9);
        gathering.begin(now);
        gathering.came(MOST, now + Duration::from_millis(1));
        let told = Told::default();
        gathering.wait_for_much(&told, MOST).unwrap();
        assert_eq!(*told.marks.lock().unwrap(), [MOST]);
    }

    #[test]
    fn a_stream_that_takes_no_mark_is_read_as_ever_and_one_that_keeps_it_is_not() {
        let (mut gathering, mut now) = begun();
        at_pace(&mut gathering, &mut now, 1 << 30, MOST);
        let refuses = Told { refuses: true, ..Told::default() };
        assert!(gathering.wait_for_much(&refuses, LEAST).is_err(), "it would wait for more than comes");
        assert!(gathering.wait_for_anything(&refuses).is_err());
        gathering.wait_for_anything(&Told::default()).unwrap();
        assert!(gathering.wait_for_much(&refuses, MOST).is_ok());
        assert!(gathering.wait_for_anything(&refuses).is_ok());
    }
}
