//! `vortex bench` measures what it says it measures. How fast anything is, no test says.

use serde_json::Value;
use std::collections::BTreeSet;
use std::process::{Command, Stdio};

fn bench(arguments: &[&str]) -> Vec<Value> {
    bench_of("1MiB", arguments)
}

fn bench_of(size: &str, arguments: &[&str]) -> Vec<Value> {
    let output = Command::new(env!("CARGO_BIN_EXE_vortex"))
        .args(["bench", "--json", "--rounds", "2", "--size", size])
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn each_round_has_every_side_and_what_it_is_compared_with() {
    for source in ["file", "memory"] {
        let target = if source == "file" { "discard" } else { "file" };
        let events = bench(&[
            "--against",
            "raw-quic",
            "--piece-length",
            "64KiB,1MiB",
            "--source",
            source,
            "--target",
            target,
        ]);
        let of = |event| events.iter().filter(move |value| value["event"] == event);
        let runs: Vec<_> = of("run").map(|run| (run["round"].as_u64(), run["side"].as_str())).collect();
        let round = |round| [(Some(round), Some("quic")), (Some(round), Some("raw-quic"))];
        assert_eq!(
            runs,
            [round(1), round(2), round(1), round(2)].concat(),
            "interleaved, for each piece length"
        );
        for run in of("run") {
            for positive in ["mb_per_second", "server_cpu_per_gib", "client_cpu_per_gib", "client_peak_mib"] {
                assert!(run[positive].as_f64().unwrap() > 0.0, "{positive} of {run}");
            }
        }
        let lengths: BTreeSet<_> = of("side").map(|side| side["piece_length"].as_u64()).collect();
        assert_eq!(lengths, BTreeSet::from([Some(64 << 10), Some(1 << 20)]));
        let ratios: Vec<_> = of("ratio").map(|r| (r["side"].as_str(), r["against"].as_str())).collect();
        assert_eq!(ratios, [(Some("quic"), Some("raw-quic")); 2]);
    }
}

#[test]
fn idle_connections_are_open_beside_the_transfer_and_what_they_cost_is_told() {
    let events = bench(&["--against", "tcp", "--idle", "0,20"]);
    let of = |event| events.iter().filter(move |value| value["event"] == event);
    let rounds: Vec<_> = of("run").map(|run| (run["round"].as_u64(), run["idle"].as_u64())).collect();
    let round = |round| [0, 0, 20, 20].map(|idle| (Some(round), Some(idle)));
    assert_eq!(rounds, [round(1), round(2)].concat(), "settings are interleaved as sides are");
    assert!(of("side").all(|side| side["idle_kib"].is_null() == (side["idle"] == 0)));
    let changes: Vec<_> = of("change").map(|c| (c["side"].as_str(), c["idle"].as_u64())).collect();
    assert_eq!(changes, [(Some("quic"), Some(20)), (Some("tcp"), Some(20))]);
    assert!(of("change").all(|change| change["throughput"]["median"].as_f64().unwrap() > 0.0));
}

/// A program that is only started, like curl, has its processor time counted all the same.
#[test]
fn programs_that_are_installed_are_measured_with_what_they_use() {
    let installed = |name: &&&str| {
        let status = Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    let programs: Vec<&str> = ["curl", "iperf3"].iter().filter(installed).copied().collect();
    let events = bench_of("256MiB", &["--against", "curl,iperf3", "--source", "memory"]);
    for program in programs {
        let run = events.iter().find(|event| event["event"] == "run" && event["side"] == program).unwrap();
        for side in ["server", "client"] {
            // The kernel counts another program's time in hundredths of a second. What the worker that starts it has used is
            // some thousandths; for curl, one of the workers does the work.
            let least = if program == "iperf3" { 0.03 } else { 0.0 };
            assert!(run[format!("{side}_cpu_per_gib")].as_f64().unwrap() > least, "{run}");
        }
        assert_eq!(run["first_byte_ms"].is_null(), program == "iperf3", "{run}");
    }
}

/// `cargo test --workspace` builds it; a test of this package alone does not.
#[test]
fn the_side_of_tonic_needs_its_program() {
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_vortex")).with_file_name("examples/tonic-peer");
    let events = bench(&["--against", "tonic,tonic-stream"]);
    let ratios: Vec<_> = events.iter().filter_map(|event| event["against"].as_str()).collect();
    let expected: &[&str] = if program.exists() { &["tonic", "tonic-stream"] } else { &[] };
    assert_eq!(ratios, expected);
}
