//! Prometheus metrics under the names that Dragonfly's dashboards know, and health, over HTTP.
//!
//! What Dragonfly has a name for has it here (`dragonfly_client_upload_traffic`, …); the rest begins with `vortex_`.

mod http;

pub use http::{Page, serve};

use crate::server::{Limit, ServerSettings, ServerStats};
use crate::wire::PieceKind;
use prometheus::core::Collector;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

/// Where Dragonfly's names begin.
const DRAGONFLY: &str = "dragonfly_client";

/// The number of a kind of tasks in Dragonfly's API, by which its metrics tell them apart.
fn task_type(kind: PieceKind) -> &'static str {
    match kind {
        PieceKind::Piece => "0",
        PieceKind::Persistent => "1",
        PieceKind::PersistentCache => "2",
        PieceKind::Cache => "3",
    }
}

/// The text of a scrape.
#[derive(Debug, Default)]
pub struct Exposition(Registry);

impl Exposition {
    /// The figures of a server beside its limits.
    ///
    /// # Errors
    /// A name or a label is not one: a mistake of this crate.
    pub fn server(self, stats: &ServerStats, settings: &ServerSettings) -> prometheus::Result<Self> {
        let piece = |name: &str, help: &str| {
            IntCounterVec::new(Opts::new(name, help).namespace(DRAGONFLY), &["task_type"])
        };
        let begun = piece("upload_piece_total", "Answers with a piece that were begun.")?;
        let failed = piece("upload_piece_failure_total", "Answers with a piece that were broken off.")?;
        let traffic = piece("upload_traffic", "Bytes of content that were sent.")?;
        for (kind, piece) in &stats.pieces {
            let label = [task_type(*kind)];
            begun.with_label_values(&label).inc_by(piece.begun);
            failed.with_label_values(&label).inc_by(piece.failed);
            traffic.with_label_values(&label).inc_by(piece.bytes);
        }
        let met = IntCounterVec::new(
            Opts::new(
                "vortex_limit_met_total",
                "How often each limit was met: by a refusal, a wait or an end.",
            ),
            &["limit"],
        )?;
        let limits = IntGaugeVec::new(
            Opts::new(
                "vortex_limit",
                "The limits as they are set, in the unit of each; none where there is none.",
            ),
            &["limit"],
        )?;
        for (limit, count) in &stats.limits {
            met.with_label_values(&[limit.name()]).inc_by(*count);
        }
        for limit in Limit::ALL {
            if let Some(value) = limit.value(settings) {
                limits.with_label_values(&[limit.name()]).set(signed(value));
            }
        }
        self.with(begun)?
            .with(failed)?
            .with(traffic)?
            .with(met)?
            .with(limits)?
            .gauge("dragonfly_client_concurrent_upload_piece_total", "Answers under way.", stats.answers)?
            .gauge("vortex_connections", "Connections that are open.", stats.connections)?
            .gauge("vortex_handshakes", "QUIC handshakes under way.", stats.handshakes)?
            .gauge("vortex_memory_bytes", "Content in memory for answers.", stats.memory)?
            .gauge(
                "vortex_windows_bytes",
                "What QUIC connections may send beyond what is acknowledged, without the least of each.",
                stats.windows,
            )?
            .counter("vortex_connections_total", "Connections that were let in.", stats.accepted)?
            .counter(
                "vortex_errors_sent_total",
                "Error packets, and statuses of gRPC, that were sent.",
                stats.refused,
            )
    }

    /// What Prometheus reads.
    ///
    /// # Errors
    /// As of [`server`](Self::server).
    pub fn text(&self) -> prometheus::Result<String> {
        TextEncoder::new().encode_to_string(&self.0.gather())
    }

    fn gauge(self, name: &str, help: &str, value: u64) -> prometheus::Result<Self> {
        let gauge = IntGauge::new(name, help)?;
        gauge.set(signed(value));
        self.with(gauge)
    }

    fn counter(self, name: &str, help: &str, value: u64) -> prometheus::Result<Self> {
        let counter = IntCounter::new(name, help)?;
        counter.inc_by(value);
        self.with(counter)
    }

    fn with(self, collector: impl Collector + 'static) -> prometheus::Result<Self> {
        self.0.register(Box::new(collector))?;
        Ok(self)
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
