//! What a person sees of a transfer, and what a program reads of it.

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::io::{IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use vortex_p2p::downloader::transfer::{Event, Observer, PeerReport};
use vortex_p2p::downloader::{AutoEvent, Peer};

/// Where the events of a transfer go: objects on stdout, a bar on a terminal, or lines on stderr.
pub(crate) struct Progress {
    json: bool,
    bar: ProgressBar,
    plain: bool,
    /// What happens from now on is of no account: the last line is the result.
    finished: AtomicBool,
}

/// An event, as programs read it: one object a line, `event` first.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub(crate) enum Line<'a> {
    Start {
        task: String,
        pieces: u64,
        bytes: u64,
        resumed: u64,
    },
    Piece {
        piece: u32,
        peer: String,
        bytes: u64,
        seconds: f64,
    },
    Peer {
        peer: String,
        state: &'a str,
        reason: &'a str,
    },
    Retry {
        piece: u32,
        peer: String,
        reason: &'a str,
    },
    Serving {
        task: String,
        quic: SocketAddr,
        tcp: SocketAddr,
    },
    Way {
        peer: String,
        way: String,
        state: &'a str,
        reason: Option<String>,
    },
    Done {
        bytes: u64,
        seconds: f64,
        resumed: u64,
        peers: Vec<PeerShare>,
        #[serde(skip_serializing_if = "<[_]>::is_empty")]
        ways: &'a [WayShare],
        sha256: String,
        output: String,
    },
}

/// Bytes that have come over one way to a peer that has several; those of answers that were given up count, too.
#[derive(Serialize)]
pub(crate) struct WayShare {
    pub(crate) way: String,
    pub(crate) bytes: u64,
}

/// What one peer gave.
#[derive(Serialize)]
pub(crate) struct PeerShare {
    pub(crate) peer: String,
    pub(crate) pieces: u64,
    pub(crate) bytes: u64,
    pub(crate) share: f64,
    pub(crate) failures: u64,
}

impl PeerShare {
    pub(crate) fn of(reports: &[PeerReport]) -> Vec<Self> {
        let total: u64 = reports.iter().map(|report| report.bytes).sum();
        let share = |bytes: u64| if total == 0 { 0.0 } else { bytes as f64 / total as f64 };
        reports
            .iter()
            .map(|report| Self {
                peer: report.peer.to_string(),
                pieces: report.pieces,
                bytes: report.bytes,
                share: share(report.bytes),
                failures: report.failures,
            })
            .collect()
    }
}

impl Progress {
    pub(crate) fn new(json: bool, hidden: bool) -> Arc<Self> {
        let terminal = std::io::stderr().is_terminal() && !hidden;
        let bar = if terminal && !json { ProgressBar::new(0) } else { ProgressBar::hidden() };
        let style = ProgressStyle::with_template(
            "{bar:32.cyan} {percent:>3}%  {binary_bytes:>10} of {binary_total_bytes}  {binary_bytes_per_sec}  {eta} left  {msg}",
        );
        if let Ok(style) = style {
            bar.set_style(style.progress_chars("█▌ "));
        }
        Arc::new(Self { json, bar, plain: !terminal && !hidden, finished: AtomicBool::new(false) })
    }

    /// Whether programs read stdout.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Tells one event.
    pub(crate) fn line(&self, line: &Line<'_>) {
        if self.json {
            // Whoever closed the pipe does not want to know.
            let _ = writeln!(std::io::stdout(), "{}", serde_json::to_string(line).unwrap_or_default());
        }
    }

    /// A sentence for people.
    pub(crate) fn say(&self, text: &str) {
        if !self.json {
            self.bar.suspend(|| eprintln!("{text}"));
        }
    }

    pub(crate) fn finish(&self) {
        self.finished.store(true, Ordering::Release);
        self.bar.finish_and_clear();
    }

    /// Tells how a way to a peer was found, or lost.
    pub(crate) fn negotiated(&self, event: &AutoEvent) {
        if self.finished.load(Ordering::Acquire) {
            return;
        }
        let (peer, way, state, reason) = match event {
            AutoEvent::Open { peer, way } => (peer, way, "open", None),
            AutoEvent::Late { peer, way, waited } => {
                (peer, way, "late", Some(format!("no connection in {} ms", waited.as_millis())))
            }
            AutoEvent::Closed { peer, way, error } => (peer, way, "closed", Some(error.to_string())),
            AutoEvent::Taken { peer, way } => (peer, way, "taken", None),
        };
        match &reason {
            Some(reason) => self.say(&format!("{way}: {reason}")),
            None => tracing::debug!(%way, state, "a way to a peer"),
        }
        self.line(&Line::Way { peer: peer.to_string(), way: way.to_string(), state, reason });
    }

    /// Watches a transfer of `task` from `peers`.
    pub(crate) fn observer(self: &Arc<Self>, task: String, peers: Vec<Peer>) -> Observer {
        let progress = self.clone();
        let givers = Mutex::new(vec![0u64; peers.len()]);
        Arc::new(move |event| {
            let name = |peer: usize| peers.get(peer).map(Peer::to_string).unwrap_or_default();
            match event {
                Event::Start { pieces, bytes, resumed } => {
                    progress.bar.set_length(bytes);
                    progress.bar.set_position(resumed);
                    progress.bar.reset_eta();
                    progress.line(&Line::Start { task: task.clone(), pieces, bytes, resumed });
                    if resumed > 0 {
                        progress.say(&format!("going on: {resumed} of {bytes} bytes are here already"));
                    }
                }
                Event::Bytes { count, .. } => progress.bar.inc(count),
                Event::Piece { number, peer, bytes, elapsed } => {
                    let mut givers = givers.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Some(pieces) = givers.get_mut(peer) {
                        *pieces += 1;
                    }
                    let active = givers.iter().filter(|pieces| **pieces > 0).count();
                    progress.bar.set_message(format!("{active} of {} peers", peers.len()));
                    let seconds = elapsed.as_secs_f64();
                    progress.line(&Line::Piece { piece: number, peer: name(peer), bytes, seconds });
                }
                Event::Retry { number, peer, reason } => {
                    tracing::debug!(piece = number, peer = name(peer), reason, "asked again elsewhere");
                    progress.line(&Line::Retry { piece: number, peer: name(peer), reason: &reason });
                }
                // The piece is here, by the other answer.
                Event::Beaten { .. } => {}
                Event::PeerGone { peer, reason } => {
                    progress.line(&Line::Peer { peer: name(peer), state: "gone", reason: &reason });
                    if progress.plain || !progress.bar.is_hidden() {
                        progress.say(&format!("{} is not asked any more: {reason}", name(peer)));
                    }
                }
            }
        })
    }
}

/// Bytes as people read them.
pub(crate) fn size(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

/// A table of what each peer gave.
pub(crate) fn shares(reports: &[PeerReport]) -> String {
    let mut text = String::new();
    for (share, report) in PeerShare::of(reports).iter().zip(reports) {
        let trouble = match &report.last {
            Some((_, reason)) if report.gone => format!("  gone: {reason}"),
            Some((_, reason)) => format!("  {} failed: {reason}", report.failures),
            None => String::new(),
        };
        text.push_str(&format!(
            "  {:<32} {:>6} pieces  {:>11}  {:>4.0} %{trouble}\n",
            share.peer,
            share.pieces,
            size(share.bytes),
            share.share * 100.0,
        ));
    }
    text
}
