//! What was measured: a table for people, one object a line for programs.

use super::job::{Job, Source, Target};
use super::side::Side;
use super::statistics::Spread;
use serde::Serialize;
use std::io::{self, Write as _};
use vortex_p2p::config::ByteSize;

/// One transfer.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Run {
    pub(super) side: Side,
    pub(super) round: u32,
    pub(super) mb_per_second: f64,
    /// Seconds of processor time.
    pub(super) server_cpu_per_gib: f64,
    pub(super) client_cpu_per_gib: f64,
    pub(super) server_peak_mib: f64,
    pub(super) client_peak_mib: f64,
    pub(super) first_byte_ms: Option<f64>,
    pub(super) piece_p50_ms: f64,
    pub(super) piece_p99_ms: f64,
    /// What the server holds in memory for each idle connection, where there are any.
    pub(super) idle_kib: Option<f64>,
}

/// What transfers have in common that are compared side by side.
#[derive(Clone, Copy, Serialize)]
struct Setting {
    size: u64,
    piece_length: u64,
    concurrency: u32,
    connections: u32,
    idle: u32,
    datagram: Option<u16>,
    source: Source,
    target: Target,
}

impl Run {
    fn cpu_per_gib(&self) -> f64 {
        self.server_cpu_per_gib + self.client_cpu_per_gib
    }
}

/// All rounds of one setting.
pub(super) struct Cell {
    job: Job,
    runs: Vec<Run>,
}

#[derive(Serialize)]
struct Summary {
    side: Side,
    #[serde(flatten)]
    setting: Setting,
    rounds: usize,
    mb_per_second: Spread,
    server_cpu_per_gib: Spread,
    client_cpu_per_gib: Spread,
    server_peak_mib: Spread,
    client_peak_mib: Spread,
    first_byte_ms: Option<Spread>,
    piece_p50_ms: Spread,
    piece_p99_ms: Spread,
    idle_kib: Option<Spread>,
}

/// What two transfers had in the same rounds, divided.
#[derive(Serialize)]
struct Ratio {
    side: Side,
    against: Side,
    #[serde(flatten)]
    setting: Setting,
    throughput: Spread,
    cpu_per_gib: Spread,
}

impl Cell {
    pub(super) fn new(job: Job) -> Self {
        Self { job, runs: Vec::new() }
    }

    pub(super) fn job(&self) -> &Job {
        &self.job
    }

    fn setting(&self) -> Setting {
        let Job { length, piece_length, concurrency, connections, idle, datagram, source, target, .. } =
            self.job;
        Setting { size: length, piece_length, concurrency, connections, idle, datagram, source, target }
    }

    pub(super) fn push(&mut self, run: Run) {
        self.runs.push(run);
    }

    fn of(&self, side: Side) -> impl Iterator<Item = &Run> {
        self.runs.iter().filter(move |run| run.side == side)
    }

    fn sides(&self) -> Vec<Side> {
        let mut sides: Vec<Side> = self.runs.iter().map(|run| run.side).collect();
        sides.sort_unstable();
        sides.dedup();
        sides
    }

    fn summary(&self, side: Side) -> Option<Summary> {
        let spread = |value: fn(&Run) -> f64| Spread::of(self.of(side).map(value));
        Some(Summary {
            side,
            setting: self.setting(),
            rounds: self.of(side).count(),
            mb_per_second: spread(|run| run.mb_per_second)?,
            server_cpu_per_gib: spread(|run| run.server_cpu_per_gib)?,
            client_cpu_per_gib: spread(|run| run.client_cpu_per_gib)?,
            server_peak_mib: spread(|run| run.server_peak_mib)?,
            client_peak_mib: spread(|run| run.client_peak_mib)?,
            first_byte_ms: Spread::of(self.of(side).filter_map(|run| run.first_byte_ms)),
            piece_p50_ms: spread(|run| run.piece_p50_ms)?,
            piece_p99_ms: spread(|run| run.piece_p99_ms)?,
            idle_kib: Spread::of(self.of(side).filter_map(|run| run.idle_kib)),
        })
    }

    /// Vortex over what it is compared with, round by round; TCP is compared with QUIC.
    fn ratio(&self, other: Side) -> Option<Ratio> {
        let (side, against) = match other.compared()? {
            Side::Quic if other == Side::Tcp => (Side::Tcp, Side::Quic),
            ours => (ours, other),
        };
        self.divided(side, self, against)
    }

    /// What `side` has here over what `against` has in `other`, round by round.
    fn divided(&self, side: Side, other: &Self, against: Side) -> Option<Ratio> {
        let pairs: Vec<(&Run, &Run)> = self.of(side).zip(other.of(against)).collect();
        Some(Ratio {
            side,
            against,
            setting: self.setting(),
            throughput: Spread::of(
                pairs.iter().map(|(ours, other)| ours.mb_per_second / other.mb_per_second),
            )?,
            cpu_per_gib: Spread::of(
                pairs.iter().map(|(ours, other)| ours.cpu_per_gib() / other.cpu_per_gib()),
            )?,
        })
    }
}

#[derive(Serialize)]
struct With<'a, T> {
    #[serde(flatten)]
    setting: Setting,
    #[serde(flatten)]
    of: &'a T,
}

#[derive(Serialize)]
struct Event<'a, T> {
    event: &'a str,
    #[serde(flatten)]
    of: T,
}

/// Writes results to stdout, and to people on stderr what is under way.
pub(super) struct Reporter {
    json: bool,
}

impl Reporter {
    pub(super) fn new(json: bool) -> Self {
        Self { json }
    }

    pub(super) fn skip(&mut self, side: Side, why: &str) {
        // Nobody is left to hear it where this fails.
        let _ = writeln!(io::stderr(), "{} is left out: {why}", side.name());
    }

    pub(super) fn run(&mut self, cell: &Cell, run: &Run) -> io::Result<()> {
        if self.json {
            return line("run", &With { setting: cell.setting(), of: run });
        }
        let (round, side) = (run.round, run.side.name());
        writeln!(
            io::stderr(),
            "round {round}: {side}, {:.0} MB/s, {:.2} s/GiB",
            run.mb_per_second,
            run.cpu_per_gib()
        )
    }

    /// What came of a cell, also over what the same sides have in the `first` one.
    pub(super) fn cell(&mut self, cell: &Cell, first: Option<&Cell>) -> io::Result<()> {
        let sides = cell.sides();
        let summaries = sides.iter().filter_map(|side| cell.summary(*side));
        let ratios = sides.iter().filter_map(|side| cell.ratio(*side));
        let changes = sides.iter().filter_map(|side| cell.divided(*side, first?, *side));
        if self.json {
            summaries.into_iter().try_for_each(|summary| line("side", &summary))?;
            ratios.into_iter().try_for_each(|ratio| line("ratio", &ratio))?;
            return changes.into_iter().try_for_each(|change| line("change", &change));
        }
        io::stdout().lock().write_all(table(&cell.job, summaries, ratios, changes).as_bytes())
    }
}

fn line(event: &str, of: &impl Serialize) -> io::Result<()> {
    let line = serde_json::to_string(&Event { event, of })?;
    writeln!(io::stdout(), "{line}")
}

fn table(
    job: &Job,
    sides: impl Iterator<Item = Summary>,
    ratios: impl Iterator<Item = Ratio>,
    changes: impl Iterator<Item = Ratio>,
) -> String {
    let from = match job.source {
        Source::File => "from a file in the page cache",
        Source::Memory => "from memory",
    };
    let to = match job.target {
        Target::Discard => "discarded",
        Target::File => "written to a file",
    };
    let mut text = format!(
        "{} in pieces of {}, {} at a time over {} connection(s), {} idle beside; {from}, {to}\n",
        ByteSize(job.length),
        ByteSize(job.piece_length),
        job.concurrency,
        job.connections,
        job.idle,
    );
    text.push_str(&format!(
        "{:<14} {:>20} {:>15} {:>15} {:>11} {:>17}\n",
        "", "MB/s (least-most)", "CPU s/GiB", "peak MiB", "first byte", "piece p50/p99"
    ));
    for side in sides {
        let rate = side.mb_per_second;
        let pair = |one: Spread, other: Spread, digits| {
            format!("{:.digits$} + {:.digits$}", one.median, other.median)
        };
        text.push_str(&format!(
            "{:<14} {:>20} {:>15} {:>15} {:>11} {:>14} ms",
            side.side.name(),
            format!("{:.0} ({:.0}-{:.0})", rate.median, rate.min, rate.max),
            pair(side.server_cpu_per_gib, side.client_cpu_per_gib, 2),
            pair(side.server_peak_mib, side.client_peak_mib, 0),
            side.first_byte_ms.map_or("-".into(), |first| format!("{:.1} ms", first.median)),
            format!("{:.1}/{:.1}", side.piece_p50_ms.median, side.piece_p99_ms.median),
        ));
        if let Some(idle) = side.idle_kib {
            text.push_str(&format!("  {:.1} KiB per idle connection", idle.median));
        }
        text.push('\n');
    }
    let named = ratios.map(|ratio| (ratio.against.name(), ratio));
    for (against, ratio) in named.chain(changes.map(|change| ("first setting", change))) {
        let spread = |of: Spread| format!("{:.2} ({:.2}-{:.2})", of.median, of.min, of.max);
        text.push_str(&format!(
            "{:<22} throughput {}   CPU {}\n",
            format!("{} / {against}", ratio.side.name()),
            spread(ratio.throughput),
            spread(ratio.cpu_per_gib),
        ));
    }
    text
}
