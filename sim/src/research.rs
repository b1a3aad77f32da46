//! Which setting to choose: transfer times over a grid of paths, as pictures and tables of the book.
//!
//! A path is a delay, a rate with a queue before it that holds one round trip of traffic, and independent loss. Each
//! value is the median over seeds.

use crate::net::{Bandwidth, Conditions};
use crate::plot::{self, Panel, Series, row};
use crate::scenario::Violation;
use crate::scenario::research::{FILE, Fetch, First, file_time, first_byte_time};
use crate::scenario::swarm;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const LOSSES: [f64; 4] = [0.0, 0.001, 0.01, 0.03];
const LOSS_NAMES: [&str; 4] = ["0", "0.1 %", "1 %", "3 %"];
const ROUND_TRIPS: [u64; 3] = [10, 50, 150];
const RATES: [u64; 2] = [20, 200];
const FETCHES: [(Fetch, &str); 4] = [
    (Fetch::QuicCubic, "QUIC Cubic"),
    (Fetch::QuicBbr, "QUIC BBR"),
    (Fetch::Tcp(1), "TCP, 1"),
    (Fetch::Tcp(4), "TCP, 4"),
];
const FIRST_ROUND_TRIPS: [u64; 2] = [50, 100];
const FIRST_LOSSES: [f64; 2] = [0.0, 0.02];
const FIRSTS: [(First, &str); 4] = [
    (First::QuicEarly, "QUIC, 0-RTT"),
    (First::Quic, "QUIC, 1-RTT"),
    (First::Tcp, "TCP"),
    (First::TcpTls, "TCP with TLS 1.3"),
];

fn path(round_trip: u64, loss: f64, rate: Option<u64>) -> Conditions {
    let round_trip = Duration::from_millis(round_trip);
    let path = Conditions::latency(round_trip / 2).with_loss(loss);
    rate.map_or(path, |rate| path.with_bandwidth(Bandwidth::mbit(rate, round_trip)))
}

/// Measures everything on `threads` threads, `seeds` times each, and writes `transfer-time.svg` and `research-tables.txt`
/// into `folder`.
///
/// # Errors
/// A measurement that failed, or a file that can't be written.
pub fn write(folder: &Path, seeds: u64, threads: usize) -> Result<(), Violation> {
    let mut tables = String::new();
    let files = files(seeds, threads)?;
    let mut panels = Vec::new();
    let mut rest = files.as_slice();
    for rate in RATES {
        for round_trip in ROUND_TRIPS {
            let (here, further) = rest.split_at(LOSSES.len() * FETCHES.len());
            rest = further;
            let series = |(index, (_, name)): (usize, &(Fetch, &str))| Series {
                name: (*name).to_owned(),
                values: here.iter().skip(index).step_by(FETCHES.len()).copied().collect(),
            };
            let series: Vec<Series> = FETCHES.iter().enumerate().map(series).collect();
            panels.push(Panel { title: format!("{rate} Mbit/s, {round_trip} ms"), series });
        }
    }
    let megabytes = FILE >> 20;
    let up = format!("seconds for {megabytes} MiB");
    fs::write(
        folder.join("transfer-time.svg"),
        plot::panels(&panels, ROUND_TRIPS.len(), &LOSS_NAMES, "loss", &up),
    )?;
    writeln!(tables, "Seconds for {megabytes} MiB, the median of {seeds} seeds:\n")?;
    row(&mut tables, "path, loss", FETCHES.iter().map(|(_, name)| (*name).to_owned()))?;
    row(&mut tables, "---", FETCHES.iter().map(|_| "--:".to_owned()))?;
    for panel in &panels {
        for (index, loss) in LOSS_NAMES.iter().enumerate() {
            let values = panel.series.iter().filter_map(|series| series.values.get(index));
            row(&mut tables, &format!("{}, {loss}", panel.title), values.map(|value| format!("{value:.2}")))?;
        }
    }
    // A first byte is cheap, and its tail is what matters.
    let runs = seeds * 20;
    writeln!(
        tables,
        "\nMilliseconds from before the connection is made to the begin of an answer, median and 95 % of {runs} seeds:\n"
    )?;
    row(&mut tables, "round trip, loss", FIRSTS.iter().map(|(_, name)| (*name).to_owned()))?;
    row(&mut tables, "---", FIRSTS.iter().map(|_| "--:".to_owned()))?;
    for round_trip in FIRST_ROUND_TRIPS {
        for loss in FIRST_LOSSES {
            let mut cells = Vec::new();
            for (first, _) in FIRSTS {
                let times =
                    sorted(threads, runs, |seed| first_byte_time(first, path(round_trip, loss, None), seed))?;
                let at = |share: f64| times.get(((times.len() - 1) as f64 * share).round() as usize).copied();
                let (median, late) = (at(0.5).unwrap_or_default(), at(0.95).unwrap_or_default());
                cells.push(format!("{:.0} / {:.0}", median * 1e3, late * 1e3));
            }
            row(&mut tables, &format!("{round_trip} ms, {} %", loss * 100.0), cells)?;
        }
    }
    fs::write(folder.join("research-tables.txt"), tables)?;
    Ok(())
}

/// How long swarms of so many leechers take for a file, beside the least time that their uplinks allow, as a table; with uplinks
/// that keep packets waiting for up to each of `queues`. Each value is the median of `seeds` runs, and in brackets the least and
/// the greatest of them.
///
/// # Errors
/// A run that failed.
pub fn swarms(
    leechers: &[u32],
    queues: &[Duration],
    seeds: u64,
    threads: usize,
) -> Result<String, Violation> {
    let mut table = String::new();
    let columns = [
        "queue, ms",
        "least, s",
        "seed alone, s",
        "first has it, s",
        "half have it, s",
        "all have it, s",
        "times the least",
        "sent by the seed, times",
    ];
    row(&mut table, "leechers", columns)?;
    row(&mut table, "--:", columns.map(|_| "--:"))?;
    for (count, queue) in leechers.iter().flat_map(|count| queues.iter().map(move |queue| (*count, *queue))) {
        let races = on_threads(threads, seeds, |seed| swarm::measure(count, queue, seed))?;
        let Some(any) = races.first() else { continue };
        let spread = |value: &dyn Fn(&swarm::Race) -> f64| {
            let mut values: Vec<f64> = races.iter().map(value).collect();
            values.sort_by(f64::total_cmp);
            let at = |index: usize| values.get(index).copied().unwrap_or_default();
            format!("{:.2} ({:.2}–{:.2})", at(values.len() / 2), at(0), at(values.len() - 1))
        };
        let at = |race: &swarm::Race, index: usize| race.took.get(index).map_or(0.0, Duration::as_secs_f64);
        let last = |race: &swarm::Race| at(race, race.took.len().saturating_sub(1));
        let cells = [
            queue.as_millis().to_string(),
            format!("{:.2}", any.least.as_secs_f64()),
            format!("{:.1}", any.alone.as_secs_f64()),
            spread(&|race| at(race, 0)),
            spread(&|race| at(race, race.took.len().div_ceil(2).saturating_sub(1))),
            spread(&last),
            spread(&|race| last(race) / race.least.as_secs_f64()),
            spread(&swarm::Race::copies),
        ];
        row(&mut table, &count.to_string(), cells)?;
    }
    Ok(table)
}

/// The median of each path and way: rates, then round trips, then losses, then ways.
fn files(seeds: u64, threads: usize) -> Result<Vec<f64>, Violation> {
    let mut cells = Vec::new();
    for rate in RATES {
        for round_trip in ROUND_TRIPS {
            for loss in LOSSES {
                cells.extend(FETCHES.map(|(fetch, _)| (fetch, path(round_trip, loss, Some(rate)))));
            }
        }
    }
    let all = cells.len() as u64 * seeds;
    let times = on_threads(threads, all, |run| {
        let (fetch, path) = cells.get((run / seeds) as usize).ok_or("no such cell")?;
        file_time(*fetch, *path, run % seeds).map(|took| took.as_secs_f64())
    })?;
    let median = |times: &[f64]| {
        let mut times = times.to_vec();
        times.sort_by(f64::total_cmp);
        times.get(times.len() / 2).copied().unwrap_or_default()
    };
    Ok(times.chunks(seeds as usize).map(median).collect())
}

fn sorted(
    threads: usize,
    runs: u64,
    measure: impl Fn(u64) -> Result<Duration, Violation> + Sync,
) -> Result<Vec<f64>, Violation> {
    let mut times = on_threads(threads, runs, |seed| measure(seed).map(|took| took.as_secs_f64()))?;
    times.sort_by(f64::total_cmp);
    Ok(times)
}

/// What was measured in each run, in the order of runs.
fn on_threads<T: Send>(
    threads: usize,
    runs: u64,
    measure: impl Fn(u64) -> Result<T, Violation> + Sync,
) -> Result<Vec<T>, Violation> {
    let (next, results) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        loop {
            let run = next.fetch_add(1, Ordering::Relaxed) as u64;
            if run >= runs {
                return;
            }
            let measured = measure(run);
            crate::faults::lock(&results).push((run, measured));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(work);
        }
    });
    let mut results = results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    results.sort_by_key(|(run, _)| *run);
    results.into_iter().map(|(_, measured)| measured).collect()
}
