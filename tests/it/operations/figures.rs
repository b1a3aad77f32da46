//! What Prometheus is told, against what was moved.

use super::path;
use crate::cli::{PROTOCOLS, Serving, file, last_object, run};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use vortex_p2p::server::Limit;
use vortex_p2p::wire::{Download, ErrorCode, Message, Packet, PieceKind, TaskId};

/// Status and body of an answer.
fn fetch(address: &str, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "{request} HTTP/1.1\r\nhost: here\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().to_owned(), body.to_owned())
}

/// The value of the one sample that begins so.
fn sample(text: &str, begin: &str) -> f64 {
    let mut found = text.lines().filter_map(|line| line.strip_prefix(begin)?.strip_prefix(' '));
    let value = found.next().unwrap_or_else(|| panic!("no {begin} in {text}"));
    assert_eq!(found.next(), None);
    value.parse().unwrap()
}

#[test]
fn figures_are_those_of_what_was_moved() {
    let directory = tempfile::tempdir().unwrap();
    let source = file(directory.path(), "source", 300_000);
    let (store, out) = (path(&directory, "store"), path(&directory, "out"));
    let serving =
        Serving::new(&[&source, "--dir", &store, "--piece-length", "64KiB", "--metrics", "127.0.0.1:0"]);
    let metrics = serving.text("metrics");
    let scrape = || {
        let (status, text) = fetch(metrics, "GET /metrics");
        assert_eq!(status, "200");
        text
    };
    assert_eq!(sample(&scrape(), "dragonfly_client_upload_traffic{task_type=\"0\"}"), 0.0);
    let mut moved = 0;
    for protocol in PROTOCOLS {
        let got = run(&["get", serving.text("ticket"), "-o", &out, "--protocol", protocol, "--json"]);
        assert_eq!(last_object(&got)["event"], "done");
        moved += 300_000;
        let text = scrape();
        let traffic = sample(&text, "dragonfly_client_upload_traffic{task_type=\"0\"}");
        let pieces = sample(&text, "dragonfly_client_upload_piece_total{task_type=\"0\"}");
        if *protocol == "grpc" {
            // It has no way to ask for the length of a task, and finds it out by asking for pieces.
            assert!(traffic > f64::from(moved) && pieces > 15.0, "{traffic} {pieces}");
        } else {
            assert_eq!((traffic, pieces), (f64::from(moved), f64::from(moved / 300_000 * 5)));
        }
        assert!(sample(&text, "vortex_connections_total") >= f64::from(moved / 300_000));
    }
    let text = scrape();
    assert_eq!(sample(&text, "vortex_limit{limit=\"connections\"}"), 1000.0);
    assert_eq!(sample(&text, "vortex_limit{limit=\"requests\"}"), 4000.0);
    assert_eq!(sample(&text, "vortex_memory_bytes"), 0.0);
    for path in ["/healthy", "/metrics"] {
        assert_eq!(fetch(metrics, &format!("GET {path}")).0, "200");
        assert_eq!(fetch(metrics, &format!("POST {path}")).0, "405");
    }
    assert_eq!(fetch(metrics, "GET /").0, "404");
}

#[test]
fn what_is_refused_is_counted() {
    let directory = tempfile::tempdir().unwrap();
    let source = file(directory.path(), "source", 1000);
    let (store, config) = (path(&directory, "store"), path(&directory, "dfdaemon.yaml"));
    std::fs::write(
        &config,
        "storage: {server: {quic: {max_connections: 1}}}\nupload: {server: {ip: 127.0.0.1, port: 0}}",
    )
    .unwrap();
    let serving = Serving::new(&[
        &source,
        "--dir",
        &store,
        "--config",
        &config,
        "--metrics",
        "127.0.0.1:0",
        "--insecure",
    ]);
    let mut first = TcpStream::connect(serving.text("tcp")).unwrap();
    let nobodys = Download { kind: PieceKind::Cache, task_id: TaskId::from_sha256([0; 32]), number: 0 };
    first.write_all(&nobodys.encode(1)).unwrap();
    // It is told that there is no such task: so it has its place.
    assert_eq!(error(&mut first).0, ErrorCode::NotFound);
    let mut second = TcpStream::connect(serving.text("tcp")).unwrap();
    assert_eq!(error(&mut second), (ErrorCode::Internal, Limit::Connections.told().to_owned()));
    let (_, text) = fetch(serving.text("metrics"), "GET /metrics");
    assert_eq!(sample(&text, "vortex_limit{limit=\"connections\"}"), 1.0);
    assert_eq!(sample(&text, "vortex_connections"), 1.0);
    assert_eq!(sample(&text, "vortex_limit_met_total{limit=\"connections\"}"), 1.0);
    assert_eq!(sample(&text, "vortex_limit_met_total{limit=\"answers\"}"), 0.0);
    assert_eq!(sample(&text, "vortex_errors_sent_total"), 2.0);
}

/// The Error packet that comes next.
fn error(stream: &mut TcpStream) -> (ErrorCode, String) {
    let mut head = [0; 6];
    stream.read_exact(&mut head).unwrap();
    let mut packet = [&head[..], &vec![0; head[5].into()]].concat();
    stream.read_exact(&mut packet[6..]).unwrap();
    let Message::Error(error) = Packet::decode_exact(&packet).unwrap().message else { panic!("{packet:?}") };
    (error.code, error.message.as_str().to_owned())
}
