//! What QUIC connections did, in the folder that `QLOGDIR` names.

use super::path;
use crate::cli::{Serving, file, vortex};
use serde_json::Value;
use std::collections::BTreeMap;

/// The records of each log in `folder`, by the log's name.
fn logs(folder: &str) -> BTreeMap<String, Vec<Value>> {
    let read = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.unwrap();
        let text = std::fs::read_to_string(entry.path()).unwrap();
        let records = text.split('\u{1e}').filter(|record| !record.trim().is_empty());
        let records = records.map(|record| serde_json::from_str(record).unwrap()).collect();
        (entry.file_name().into_string().unwrap(), records)
    };
    std::fs::read_dir(folder).unwrap().map(read).collect()
}

fn count(records: &[Value], name: &str) -> usize {
    records.iter().filter(|record| record["name"] == name).count()
}

#[test]
fn each_side_writes_a_log_of_each_connection() {
    let directory = tempfile::tempdir().unwrap();
    let source = file(directory.path(), "source", 300_000);
    let (server_logs, client_logs) = (path(&directory, "server/logs"), path(&directory, "client"));
    let mut command = vortex();
    command.args(["serve", &source, "--dir", &path(&directory, "store")]);
    command.args(["--quic", "127.0.0.1:0", "--tcp", "127.0.0.1:0"]).env("QLOGDIR", &server_logs);
    let mut serving = Serving::start(command);
    let ticket = serving.text("ticket").to_owned();
    for round in ["one", "two"] {
        let mut get = vortex();
        get.args(["get", &ticket, "-o", &path(&directory, round), "--protocol", "quic"]);
        let got = get.env("QLOGDIR", &client_logs).output().unwrap();
        assert_eq!(got.status.code(), Some(0), "{}", String::from_utf8_lossy(&got.stderr));
    }
    serving.signal("TERM");
    serving.ended();

    let (server, client) = (logs(&server_logs), logs(&client_logs));
    assert!(client.len() >= 2, "{:?}", client.keys());
    for (name, records) in &client {
        let other = &server[&name.replace("_client", "_server")];
        assert_eq!(records[0]["qlog_format"], "JSON-SEQ");
        let (sent, arrived) =
            (count(other, "transport:packet_sent"), count(records, "transport:packet_received"));
        assert!(sent > 10 && arrived > 10, "{name}: {sent} were sent, {arrived} arrived");
        assert!(count(records, "recovery:metrics_updated") > 0, "{name}");
    }
}
