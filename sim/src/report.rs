//! What many runs showed, as tables and pictures of the book: from what `cargo sim run --json` printed, in any number of
//! files of any number of processes.

use crate::faults::{Fault, Tally};
use crate::plot::{self, Panel, Series, row};
use crate::scenario::Violation;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

/// Scenarios of which the time is drawn: one transfer each, on a path that the seed draws.
const TIMED: [&str; 2] = ["quic-loss", "tcp-loss"];
/// One-way delays that are drawn as one, in milliseconds.
const STEP: u64 = 10;

/// One object of the output: a run, or what all of a process showed.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Object {
    Run(Run),
    Process(Process),
}

#[derive(Debug, Deserialize)]
struct Run {
    world: String,
    scenario: String,
    seed: u64,
    verdict: String,
    virtual_seconds: f64,
    events: u64,
    /// The path and the faults of a run are told since some version only.
    loss: Option<f64>,
    delay_seconds: Option<f64>,
    faults: Option<BTreeMap<Fault, u64>>,
}

#[derive(Debug, Deserialize)]
struct Process {
    runs: u64,
    cpu_seconds: f64,
    faults: BTreeMap<Fault, Tally>,
    sometimes: BTreeMap<String, u64>,
}

#[derive(Debug, Default)]
struct Row {
    runs: BTreeMap<String, u64>,
    violations: u64,
    virtual_seconds: f64,
    events: u64,
    /// Runs that told which faults acted, and for each fault those in which it did.
    told: u64,
    acted: BTreeMap<Fault, u64>,
}

#[derive(Debug, Default)]
struct All {
    seeds: BTreeSet<u64>,
    worlds: BTreeSet<String>,
    rows: BTreeMap<String, Row>,
    violations: Vec<Run>,
    processes: u64,
    cpu_runs: u64,
    cpu_seconds: f64,
    faults: BTreeMap<Fault, Tally>,
    sometimes: BTreeMap<String, u64>,
    /// Seconds of the timed scenarios, by loss in hundredths of a per cent and by delay.
    times: BTreeMap<(String, u64, u64), Vec<f64>>,
}

/// Reads `files` and writes `report-tables.txt` into `folder`, and `report-time.svg` where runs told of their paths.
///
/// # Errors
/// A file that can't be read or written, or that has something else in it.
pub fn write(files: &[PathBuf], folder: &Path) -> Result<(), Violation> {
    let mut all = All::default();
    for file in files {
        let wrong = |why: String| format!("{}: {why}", file.display());
        let text = fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
        for (index, line) in text.lines().enumerate() {
            let object = serde_json::from_str(line).map_err(|_| {
                wrong(format!("line {}: expected what cargo sim run --json prints", index + 1))
            })?;
            all.add(object);
        }
    }
    fs::write(folder.join("report-tables.txt"), all.tables()?)?;
    if !all.times.is_empty() {
        fs::write(folder.join("report-time.svg"), all.picture())?;
    }
    Ok(())
}

impl All {
    fn add(&mut self, object: Object) {
        let run = match object {
            Object::Run(run) => run,
            Object::Process(process) => return self.add_process(process),
        };
        self.seeds.insert(run.seed);
        self.worlds.insert(run.world.clone());
        let row = self.rows.entry(run.scenario.clone()).or_default();
        *row.runs.entry(run.world.clone()).or_default() += 1;
        row.virtual_seconds += run.virtual_seconds;
        row.events += run.events;
        if let Some(faults) = &run.faults {
            row.told += 1;
            for fault in faults.keys() {
                *row.acted.entry(*fault).or_default() += 1;
            }
        }
        if let (Some(loss), Some(delay)) = (run.loss, run.delay_seconds)
            && TIMED.contains(&run.scenario.as_str())
        {
            let place = ((loss * 10_000.0).round() as u64, (delay * 1_000.0) as u64 / STEP);
            self.times.entry((run.scenario.clone(), place.0, place.1)).or_default().push(run.virtual_seconds);
        }
        if run.verdict != "ok" {
            row.violations += 1;
            self.violations.push(run);
        }
    }

    fn add_process(&mut self, process: Process) {
        self.processes += 1;
        self.cpu_runs += process.runs;
        self.cpu_seconds += process.cpu_seconds;
        for (fault, tally) in process.faults {
            let sum = self.faults.entry(fault).or_default();
            sum.armed += tally.armed;
            sum.fired += tally.fired;
            sum.seen += tally.seen;
        }
        for (state, count) in process.sometimes {
            *self.sometimes.entry(state).or_default() += count;
        }
    }

    fn tables(&self) -> Result<String, std::fmt::Error> {
        let mut out = String::new();
        self.write_runs(&mut out)?;
        self.write_faults(&mut out)?;
        self.write_acted(&mut out)?;
        writeln!(out, "\nStates that runs have to reach, each in some of them:\n")?;
        row(&mut out, "state", ["times"])?;
        row(&mut out, "---", ["--:"])?;
        for (state, count) in &self.sometimes {
            row(&mut out, state, [thousands(*count)])?;
        }
        Ok(out)
    }

    fn write_runs(&self, out: &mut String) -> std::fmt::Result {
        let rows = self.rows.values();
        let runs: u64 = rows.clone().flat_map(|row| row.runs.values()).sum();
        let hours = rows.clone().map(|row| row.virtual_seconds).sum::<f64>() / 3_600.0;
        let events: u64 = rows.map(|row| row.events).sum();
        let (first, last) = (self.seeds.first().unwrap_or(&0), self.seeds.last().unwrap_or(&0));
        writeln!(
            out,
            "{} runs of {} seeds from {first} to {last}, {hours:.0} hours of virtual time, {} million packet events, {} \
             violations; {:.1} runs for each second of processor time, in {} processes.\n",
            thousands(runs),
            thousands(self.seeds.len() as u64),
            events / 1_000_000,
            self.violations.len(),
            self.cpu_runs as f64 / self.cpu_seconds.max(f64::MIN_POSITIVE),
            self.processes,
        )?;
        let worlds = || self.worlds.iter();
        let heads = ["violations", "virtual hours", "million events"];
        row(out, "scenario", worlds().map(String::as_str).chain(heads))?;
        row(out, "---", worlds().map(|_| "--:").chain(heads.map(|_| "--:")))?;
        for (name, Row { runs, violations, virtual_seconds, events, .. }) in &self.rows {
            let runs = worlds().map(|world| thousands(runs.get(world).copied().unwrap_or_default()));
            let rest = [
                violations.to_string(),
                format!("{:.1}", virtual_seconds / 3_600.0),
                format!("{:.1}", *events as f64 / 1e6),
            ];
            row(out, &format!("`{name}`"), runs.chain(rest))?;
        }
        for Run { world, scenario, seed, verdict, .. } in &self.violations {
            writeln!(out, "\n`--world {world} --scenario {scenario} --seed {seed}`: {verdict}")?;
        }
        Ok(())
    }

    fn write_faults(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "\nThe ledger: in how many runs or times each fault was ready to act, acted, and was noticed:\n"
        )?;
        row(out, "fault", ["armed", "fired", "seen"])?;
        row(out, "---", ["--:"; 3])?;
        for (fault, Tally { armed, fired, seen }) in &self.faults {
            row(out, &name(*fault), [armed, fired, seen].map(|count| thousands(*count)))?;
        }
        Ok(())
    }

    /// By scenario, the share of runs in which each fault acted.
    fn write_acted(&self, out: &mut String) -> std::fmt::Result {
        let told: u64 = self.rows.values().map(|row| row.told).sum();
        if told == 0 {
            return Ok(());
        }
        writeln!(
            out,
            "\nIn how many of a hundred runs each fault acted, of {} runs that told:\n",
            thousands(told)
        )?;
        let acted: BTreeSet<Fault> = self.rows.values().flat_map(|row| row.acted.keys().copied()).collect();
        row(out, "scenario", acted.iter().map(|fault| name(*fault)))?;
        row(out, "---", acted.iter().map(|_| "--:"))?;
        for (scenario, Row { told, acted: counts, .. }) in self.rows.iter().filter(|(_, row)| row.told > 0) {
            let share = |fault| match counts.get(fault) {
                None => String::new(),
                Some(count) => format!("{:.0}", (*count as f64 * 100.0 / *told as f64).max(1.0)),
            };
            row(out, &format!("`{scenario}`"), acted.iter().map(share))?;
        }
        Ok(())
    }

    /// Seconds of a transfer over delay, one line for each loss.
    fn picture(&self) -> String {
        let losses: BTreeSet<u64> = self.times.keys().map(|(_, loss, _)| *loss).collect();
        let most = self.times.keys().map(|(_, _, delay)| *delay).max().unwrap_or_default();
        let median = |scenario: &str, loss, delay| {
            let mut times = self.times.get(&(scenario.to_owned(), loss, delay))?.clone();
            times.sort_by(f64::total_cmp);
            times.get(times.len() / 2).copied()
        };
        let panels = TIMED.map(|scenario| Panel {
            title: scenario.to_owned(),
            series: losses
                .iter()
                .map(|loss| Series {
                    name: format!("{} %", *loss as f64 / 100.0),
                    values: (0..=most)
                        .map(|delay| median(scenario, *loss, delay).unwrap_or(f64::NAN))
                        .collect(),
                })
                .collect(),
        });
        let ticks: Vec<String> =
            (0..=most).map(|delay| format!("{}-{}", delay * STEP, (delay + 1) * STEP)).collect();
        let ticks: Vec<&str> = ticks.iter().map(String::as_str).collect();
        plot::panels(&panels, TIMED.len(), &ticks, "one-way delay in ms", "seconds for a file")
    }
}

/// A fault as the JSON has it.
fn name(fault: Fault) -> String {
    serde_json::to_string(&fault).unwrap_or_default().trim_matches('"').to_owned()
}

/// 12,345.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(scenario: &str, seed: u64, verdict: &str, more: &str) -> String {
        format!(
            r#"{{"world":"turmoil","scenario":"{scenario}","seed":{seed},"digest":"0","verdict":"{verdict}","virtual_seconds":1.5,"events":10{more}}}"#
        )
    }

    #[test]
    fn files_of_several_processes_are_added_up() {
        let folder = std::env::temp_dir().join(format!("vortex-report-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = r#","loss":0.05,"delay_seconds":0.025,"faults":{"loss":3}"#;
        let process = r#"{"runs":2,"cpu_seconds":0.5,"faults":{"loss":{"armed":1,"fired":3,"seen":2}},"sometimes":{"there":1}}"#;
        let files = [
            vec![run("quic-loss", 0, "ok", path), run("quic-loss", 1, "ok", ""), process.to_owned()],
            vec![run("echo", 1200, "wrong", path), process.to_owned()],
        ];
        let files: Vec<PathBuf> = files
            .iter()
            .enumerate()
            .map(|(index, lines)| {
                let file = folder.join(format!("{index}.jsonl"));
                fs::write(&file, lines.join("\n") + "\n").unwrap();
                file
            })
            .collect();
        write(&files, &folder).unwrap();
        let tables = fs::read_to_string(folder.join("report-tables.txt")).unwrap();
        for expected in [
            "3 runs of 3 seeds from 0 to 1200,",
            "1 violations; 4.0 runs for each second of processor time, in 2 processes",
            "| `quic-loss` | 2 | 0 | 0.0 | 0.0 |",
            "`--world turmoil --scenario echo --seed 1200`: wrong",
            "| loss | 2 | 6 | 4 |",
            "of 2 runs that told:",
            "| `quic-loss` | 100 |",
            "| there | 2 |",
        ] {
            assert!(tables.contains(expected), "{expected} in {tables}");
        }
        // One point, in the column of 20 to 30 ms, and no line through columns that nothing is known of.
        let picture = fs::read_to_string(folder.join("report-time.svg")).unwrap();
        assert!(
            picture.contains("20-30") && picture.contains(">5 %<") && !picture.contains("NaN"),
            "{picture}"
        );
        let lines = picture.lines().filter(|line| line.contains("<polyline"));
        let points: Vec<usize> = lines.map(|line| line.matches(',').count()).collect();
        assert_eq!(points, [1, 0]);

        fs::write(&files[0], "{}\n").unwrap();
        assert!(write(&files, &folder).unwrap_err().to_string().contains("0.jsonl: line 1"));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
    }
}
