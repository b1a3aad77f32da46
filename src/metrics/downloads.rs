//! What was downloaded.

use super::{DRAGONFLY, task_type};
use crate::downloader::transfer::Event;
use crate::wire::PieceKind;
use prometheus::core::Collector;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, Opts};

/// The figures of downloads since the process began. Clones are the same figures.
#[derive(Debug, Clone)]
pub struct Downloads {
    traffic: IntCounterVec,
    duration: Histogram,
    pieces: IntCounter,
    failures: IntCounter,
}

impl Downloads {
    /// All at zero.
    ///
    /// # Errors
    /// A name or a label is not one: a mistake of this crate.
    pub fn new() -> prometheus::Result<Self> {
        let buckets = prometheus::exponential_buckets(1.0, 2.0, 18)?;
        let duration =
            HistogramOpts::new("download_piece_duration_milliseconds", "From the request to the disk.");
        Ok(Self {
            traffic: IntCounterVec::new(
                Opts::new("download_traffic", "Bytes of content that came.").namespace(DRAGONFLY),
                &["type", "task_type"],
            )?,
            duration: Histogram::with_opts(duration.namespace(DRAGONFLY).buckets(buckets))?,
            pieces: IntCounter::with_opts(
                Opts::new("download_piece_total", "Pieces that were verified and stored.")
                    .namespace(DRAGONFLY),
            )?,
            failures: IntCounter::with_opts(
                Opts::new("download_piece_failure_total", "Requests that failed and were made again.")
                    .namespace(DRAGONFLY),
            )?,
        })
    }

    /// Counts what happened in a transfer of a task of this kind.
    pub fn observe(&self, kind: PieceKind, event: &Event) {
        match event {
            Event::Bytes { count, .. } => {
                self.traffic.with_label_values(&["REMOTE_PEER", task_type(kind)]).inc_by(*count);
            }
            Event::Piece { elapsed, .. } => {
                self.pieces.inc();
                self.duration.observe(elapsed.as_secs_f64() * 1000.0);
            }
            Event::Retry { .. } => self.failures.inc(),
            _ => {}
        }
    }

    pub(super) fn collectors(&self) -> [Box<dyn Collector>; 4] {
        [
            Box::new(self.traffic.clone()),
            Box::new(self.duration.clone()),
            Box::new(self.pieces.clone()),
            Box::new(self.failures.clone()),
        ]
    }
}
