//! Each key of dfdaemon.yaml does what it says, as far as a process shows it within the time of a test.

use super::path;
use crate::cli::{Serving, file, last_object, run, vortex};
use std::io::Read as _;
use std::process::Stdio;

/// A server with the configuration `text`, in which DIR is a directory of its own.
fn serve(directory: &tempfile::TempDir, text: &str, more: &[&str]) -> (Serving, String) {
    let config = path(directory, "dfdaemon.yaml");
    std::fs::write(&config, text.replace("DIR", directory.path().to_str().unwrap())).unwrap();
    let mut command = vortex();
    command.args(["serve", "--config", &config]).args(more).stderr(Stdio::null());
    (Serving::start(command), config)
}

const DEPLOYED: &str = "
host: {idc: west-1}
scheduler: {announceInterval: 5m}
download: {protocol: tcp, concurrentPieceCount: 2, bandwidthLimit: 50GB, pieceTimeout: 60s}
upload: {bandwidthLimit: 20GB, server: {ip: 127.0.0.1, port: 0, requestRateLimit: 4000}}
storage: {dir: DIR/store, keep: true, server: {ip: 127.0.0.1, tcpPort: 0, quicPort: 0}}
metrics: {server: {ip: 127.0.0.1, port: 0}}
";

const PROPOSED: &str = "
storage:
  dir: DIR/store
  server:
    ip: 127.0.0.1
    tcpPort: 0
    protocol: quic
    quic: {port: 0, buffer_size: 4194304, idle_timeout: 300s, max_connections: 1000}
upload: {server: {ip: 127.0.0.1, port: 0}}
metrics: {server: {ip: 127.0.0.1, port: 0}}
";

#[test]
fn both_forms_of_the_file_start_the_server() {
    for text in [DEPLOYED, PROPOSED] {
        let directory = tempfile::tempdir().unwrap();
        let source = file(directory.path(), "source", 300_000);
        let (serving, _) = serve(&directory, text, &[&source, "--piece-length", "64KiB"]);
        for protocol in crate::cli::PROTOCOLS {
            assert!(serving.text(protocol).starts_with("127.0.0.1:"));
        }
        let out = path(&directory, "out");
        let got = run(&["get", serving.text("ticket"), "-o", &out, "--json"]);
        assert_eq!(last_object(&got)["event"], "done");
        assert_eq!(std::fs::read(&out).unwrap(), std::fs::read(&source).unwrap());
        assert!(directory.path().join("store").is_dir());
    }
}

#[test]
fn flags_overrule_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let text = DEPLOYED.replace("127.0.0.1", "192.0.2.1");
    let source = file(directory.path(), "source", 1000);
    let mut flags = vec![&source[..]];
    for flag in ["--quic", "--tcp", "--grpc", "--metrics"] {
        if (flag == "--grpc" && !cfg!(feature = "grpc"))
            || (flag == "--metrics" && !cfg!(feature = "metrics"))
        {
            continue;
        }
        flags.extend([flag, "127.0.0.1:0"]);
    }
    let (serving, _) = serve(&directory, &text, &flags);
    assert!(serving.text("quic").starts_with("127.0.0.1:"));
}

#[test]
fn a_typo_is_named_and_a_wrong_value_stops_the_server() {
    let directory = tempfile::tempdir().unwrap();
    let source = file(directory.path(), "source", 1000);
    let config = path(&directory, "dfdaemon.yaml");
    let store = directory.path().join("store");
    let typo = DEPLOYED.replace("DIR/store", store.to_str().unwrap()).replace("quicPort", "quicPrt");
    std::fs::write(&config, &typo).unwrap();
    let mut command = vortex();
    command.args(["serve", &source, "--config", &config, "--quic", "127.0.0.1:0"]).stderr(Stdio::piped());
    let mut serving = Serving::start(command);
    serving.signal("TERM");
    let mut log = String::new();
    serving.stderr().read_to_string(&mut log).unwrap();
    assert_eq!(serving.ended(), Some(0));
    let expected = "storage.server.quicPrt: unknown key; did you mean `quicPort`?";
    assert!(log.contains("dfdaemon.yaml:6:") && log.contains(expected), "{log}");
    // A wrong value.
    std::fs::write(&config, "storage: {server: {tcpPort: 70000}}").unwrap();
    let refused = run(&["serve", &source, "--config", &config, "--json"]);
    assert_eq!(refused.status.code(), Some(2));
    let error = last_object(&refused);
    assert!(
        error["message"].as_str().unwrap().contains("dfdaemon.yaml:1:29: storage.server.tcpPort"),
        "{error}"
    );
}

#[test]
fn pieces_outlive_the_process_unless_the_file_says_that_they_do_not() {
    let directory = tempfile::tempdir().unwrap();
    let source = file(directory.path(), "source", 1000);
    let tasks = |text: &str, more: &[&str]| {
        let (mut serving, _) = serve(&directory, text, more);
        let tasks = serving.ready["tasks"].as_array().unwrap().len();
        serving.signal("TERM");
        serving.ended();
        tasks
    };
    assert_eq!(tasks(PROPOSED, &[&source]), 1);
    assert_eq!(tasks(PROPOSED, &[]), 1, "the file does not say");
    assert_eq!(tasks(DEPLOYED, &[]), 1, "the file says keep: true");
    assert_eq!(tasks(&DEPLOYED.replace("keep: true", "keep: false"), &[]), 0);
    assert_eq!(tasks(DEPLOYED, &[]), 0);
}
