//! One seed is one run: twice in this process, and once in another.

use std::ops::Range;
use std::process::Command;
use vortex_sim::runner::{Line, Seeds, jobs, run_all};
use vortex_sim::scenario;
use vortex_sim::trace::{Keep, first_difference};
use vortex_sim::world::{World, run};

/// Two of them, among which every scenario has one but those that cost minutes here.
const SEEDS: Range<u64> = 3..5;

#[test]
fn a_seed_is_the_same_run_in_this_process_and_in_another() {
    let jobs = jobs(World::ALL, scenario::all(), &Seeds(SEEDS));
    let collect = |threads| {
        let mut lines: Vec<Line> = Vec::new();
        run_all(&jobs, threads, false, |line| lines.push(line.clone()));
        lines
    };
    let (first, second) = (collect(2), collect(1));
    for line in &first {
        assert!(line.passed(), "{line:?}");
        assert!(line.events >= 4, "a trace that is nearly empty proves nothing: {line:?}");
    }
    assert_eq!(first, second);

    let output = Command::new(env!("CARGO_BIN_EXE_vortex-sim"))
        .args(["run", "--json", "--seeds", &Seeds(SEEDS).to_string(), "--jobs", "2"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // As text: a number that is read again may differ in its last digit.
    let stdout = String::from_utf8(output.stdout).unwrap();
    let elsewhere: Vec<&str> = stdout.lines().filter(|line| line.starts_with('{')).collect();
    assert_eq!(elsewhere.len(), first.len() + 1, "one object for each run, and one for all");
    for (line, other) in first.iter().zip(&elsewhere) {
        assert_eq!(&serde_json::to_string(line).unwrap(), other);
    }
}

#[test]
fn seeds_differ() {
    let scenario = scenario::all()[0];
    let events = |seed| run(World::Turmoil, scenario, seed, Keep::Events).trace.events().to_vec();
    assert!(first_difference(&events(1), &events(2)).is_some());
}
