//! What a client has to fetch, and what it notes meanwhile.

use super::super::job::{Job, Target, Transfer, Usage};
use super::harness::{Result, ready};
use super::usage::usage;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use vortex_p2p::wire::{Division, PieceLength, PieceSpan};

/// Pieces to be fetched, by as many workers as there are.
pub(super) struct Work {
    division: Division,
    next: AtomicU64,
    bytes: AtomicU64,
    file: Option<File>,
    begun: OnceLock<(Instant, Usage)>,
    first: OnceLock<Duration>,
    pieces: Mutex<Vec<Duration>>,
}

/// A piece on its way.
pub(super) struct Fetch<'a> {
    work: &'a Work,
    pub(super) number: u32,
    pub(super) span: PieceSpan,
    asked: Instant,
    written: u64,
}

#[allow(clippy::disallowed_methods, reason = "what is measured here is the real clock")]
fn now() -> Instant {
    Instant::now()
}

impl Work {
    pub(super) fn new(job: &Job) -> Result<Self> {
        Ok(Self {
            division: division(job)?,
            next: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            file: match job.target {
                Target::Discard => None,
                Target::File => Some(File::create(job.received())?),
            },
            begun: OnceLock::new(),
            first: OnceLock::new(),
            pieces: Mutex::default(),
        })
    }

    /// Waits for the start, and starts the clock.
    pub(super) fn begin(&self) -> Result<()> {
        ready()?;
        let used = usage()?;
        self.begun.set((now(), used)).map_err(|_| "begun twice".into())
    }

    /// The next piece that nobody has taken.
    pub(super) fn next(&self) -> Option<Fetch<'_>> {
        let number = u32::try_from(self.next.fetch_add(1, Ordering::Relaxed)).ok()?;
        let span = self.division.piece(number)?;
        Some(Fetch { work: self, number, span, asked: now(), written: 0 })
    }

    /// Notes `bytes` of content that arrived otherwise than as a piece, and when the first of them did, where that is known.
    #[cfg(all(feature = "sendfile", target_os = "linux"))]
    pub(super) fn whole(&self, bytes: u64, first: Option<Duration>) {
        if let Some(first) = first {
            let _ = self.first.set(first);
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn done(&self) -> Result<Transfer> {
        let (begun, before) = *self.begun.get().ok_or("nothing was begun")?;
        let seconds = now().duration_since(begun).as_secs_f64();
        let after = usage()?;
        let bytes = self.bytes.load(Ordering::Relaxed);
        if bytes != self.division.length() {
            return Err(format!("{bytes} bytes arrived, expected {}", self.division.length()).into());
        }
        let mut pieces = std::mem::take(&mut *self.pieces.lock().unwrap_or_else(PoisonError::into_inner));
        pieces.sort_unstable();
        let at = |percent: usize| {
            let place = (pieces.len() * percent / 100).min(pieces.len().saturating_sub(1));
            pieces.get(place).map_or(seconds, Duration::as_secs_f64)
        };
        Ok(Transfer {
            bytes,
            seconds,
            first_byte: self.first.get().map(Duration::as_secs_f64),
            piece_p50: at(50),
            piece_p99: at(99),
            usage: Usage { cpu: after.cpu - before.cpu, ..after },
        })
    }
}

impl Fetch<'_> {
    /// Takes the next bytes of the piece.
    pub(super) fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let (true, Some((begun, _))) = (self.written == 0, self.work.begun.get()) {
            let _ = self.work.first.get_or_init(|| now().duration_since(*begun));
        }
        if let Some(file) = &self.work.file {
            file.write_all_at(bytes, self.span.offset + self.written)?;
        }
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// The piece is complete.
    pub(super) fn end(self) {
        self.work.bytes.fetch_add(self.written, Ordering::Relaxed);
        let mut pieces = self.work.pieces.lock().unwrap_or_else(PoisonError::into_inner);
        pieces.push(now().duration_since(self.asked));
    }
}

/// How the content is cut.
pub(super) fn division(job: &Job) -> Result<Division> {
    Ok(Division::new(job.length, PieceLength::try_from(job.piece_length)?)?)
}
