//! `vortex decode`, as scripts run it.

use crate::pcap::write::{Format, Link, Net, capture, frame};
use crate::wire::build::{self, RawContent};
use serde_json::Value;
use std::io::Write as _;
use std::process::{Command, Output, Stdio};
use vortex_p2p::wire::{DecodeError, Header, Tag};

const TASK_ID: &[u8; 64] = &[b'a'; 64];

fn decode(arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_vortex"))
        .arg("decode")
        .args(arguments)
        .env_remove("RUST_LOG")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

fn objects(output: &Output) -> Vec<Value> {
    let text = std::str::from_utf8(&output.stdout).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn field<'a>(object: &'a Value, name: &str) -> &'a Value {
    let fields = object["fields"].as_array().unwrap();
    &fields.iter().find(|field| field["name"] == name).unwrap_or_else(|| panic!("{name} in {object}"))["value"]
}

#[test]
fn one_packet_is_explained() {
    let bytes = build::download(7, 0x04, TASK_ID, 3);
    let output = decode(&["--json", &hex(&bytes)], b"");
    assert_eq!(output.status.code(), Some(0));
    let [object] = &objects(&output)[..] else { panic!("one object") };
    assert_eq!(object["ok"], true);
    assert_eq!((&object["tag"], &object["id"], &object["length"]), (&4.into(), &7.into(), &68.into()));
    assert_eq!(object["name"], "Download Persistent Cache Piece");
    assert_eq!(object["hex"], hex(&bytes));
    assert_eq!(*field(object, "task_id"), *std::str::from_utf8(TASK_ID).unwrap());
    assert_eq!(*field(object, "number"), 3);

    let output = decode(&[&hex(&bytes).to_uppercase()], b"");
    assert!(String::from_utf8(output.stdout).unwrap().contains("tag: 0x04, Download Persistent Cache Piece"));
}

#[test]
fn a_malformed_argument_fails() {
    let output = decode(&["--json", "00000000000a31"], b"");
    assert_eq!(output.status.code(), Some(1));
    let [object] = &objects(&output)[..] else { panic!("one object") };
    assert_eq!((&object["ok"], &object["error"]), (&false.into(), &"bad-length".into()));
    assert!(object["message"].as_str().unwrap().contains("expected 68"));
}

/// Each line has its answer, whatever it is, and the exit code says that the lines were read.
#[test]
fn every_line_has_its_answer() {
    let content = RawContent { appended: vec![1, 2], ..RawContent::default() };
    let lines = [
        hex(&build::packet(1, 0xFE, &[])),
        "no hexadecimal".into(),
        String::new(),
        "abc".into(),
        hex(&content.bytes()),
        "ff".repeat(20_000),
        format!("{}\r", hex(&build::error(0, 2, "é\u{202e}".as_bytes()))),
        hex(&[build::packet(1, 0xFE, &[]), vec![0; 40_000]].concat()),
        "\u{0}\u{ff}".into(),
        "0".into(),
    ];
    let output = decode(&["--json", "-"], lines.join("\n").as_bytes());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let objects = objects(&output);
    let errors: Vec<_> = objects.iter().map(|object| object["error"].as_str().unwrap_or("ok")).collect();
    let expected = [
        "ok",
        "not-hex",
        "truncated",
        "not-hex",
        "ok",
        "too-long",
        "ok",
        "trailing-bytes",
        "not-hex",
        "not-hex",
    ];
    assert_eq!(errors, expected);
    assert_eq!(*field(&objects[4], "appended"), "0102");
    assert_eq!(
        objects[4]["hex"],
        hex(&RawContent::default().bytes()),
        "appended bytes are not encoded again"
    );
    assert_eq!(*field(&objects[6], "message"), "é\u{202e}");
    assert!(objects[7]["message"].as_str().unwrap().contains("40000 bytes"), "{}", objects[7]);

    // Without --json the same lines are shown, and nothing that steers a terminal.
    let output = decode(&["-"], lines.join("\n").as_bytes());
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.contains(|c: char| c.is_control() && c != '\n' || c == '\u{202e}'));
}

/// A line of 256 MiB without an end needs no more memory than a packet: the limit on the process would kill it.
#[cfg(target_os = "linux")]
#[test]
fn a_line_without_an_end_costs_no_memory() {
    let script = "ulimit -v 262144; exec \"$0\" decode --json -";
    let mut child = Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_vortex")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"00fe00000000").unwrap();
    for _ in 0..256 {
        stdin.write_all(&[b'0'; 1 << 20]).unwrap();
    }
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(objects(&output)[0]["message"], "trailing-bytes: 134217728 bytes after the packet");
}

fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

/// The stream of a server: an answer with its content, an error, something refused, an answer that is cut off.
fn stream() -> Vec<u8> {
    [
        [RawContent::default().bytes(), b"123456789".to_vec()].concat(),
        build::error(7, 2, b"gone"),
        build::packet(1, 0x00, &[0; 5]),
        RawContent { piece_length: 0, digest: b"crc32:0".to_vec(), ..RawContent::default() }.bytes(),
        [RawContent::default().bytes(), b"1234".to_vec()].concat(),
    ]
    .concat()
}

fn check_stream(objects: &[Value]) {
    let content: Vec<_> = objects.iter().map(|object| object["content"].clone()).collect();
    let sum =
        |length, arrived, digest| serde_json::json!({"length": length, "arrived": arrived, "digest": digest});
    assert_eq!(content[0], sum(9, 9, "match"));
    assert_eq!(content[3], sum(0, 0, "match"));
    assert_eq!(content[4], sum(9, 4, "incomplete"));
    assert_eq!(objects[1]["name"], "Error");
    assert_eq!(objects[2]["error"], "bad-length");
    let first = RawContent::default().bytes().len() as u64 + 9;
    let offsets: Vec<_> = objects.iter().map(|object| object["offset"].as_u64().unwrap()).collect();
    assert_eq!(offsets[..3], [0, first, first + 11]);
    assert_eq!(offsets[3], first + 11 + 11);
}

#[test]
fn a_file_is_a_stream() {
    let path = file(&stream());
    let output = decode(&["--json", path.path().to_str().unwrap()], b"");
    assert_eq!(output.status.code(), Some(1), "not all is well in it");
    check_stream(&objects(&output));

    let wrong = [RawContent::default().bytes(), b"987654321".to_vec()].concat();
    let output = decode(&["--json", file(&wrong).path().to_str().unwrap()], b"");
    assert_eq!(output.status.code(), Some(5));
    assert_eq!(objects(&output)[0]["content"]["digest"], "mismatch");
}

#[test]
fn a_capture_holds_streams() {
    let stream = stream();
    let frames: Vec<_> = stream
        .chunks(37)
        .enumerate()
        .map(|(at, part)| frame(Link::Ethernet, Net::V4, 1000 + 37 * at as u32, 0x18, part))
        .collect();
    for format in [Format::Little, Format::NextBig] {
        let path = file(&capture(format, Link::Ethernet, &frames));
        let output = decode(&["--json", path.path().to_str().unwrap()], b"");
        let objects = objects(&output);
        check_stream(&objects);
        assert!(objects.iter().all(|object| object["flow"] == "10.0.0.1:50000 > 10.0.0.2:4005"));
    }
    let path = file(&capture(Format::Little, Link::Ethernet, &[]));
    let output = decode(&["--json", path.path().to_str().unwrap()], b"");
    assert_eq!((output.status.code(), objects(&output)[0]["event"].as_str()), (Some(3), Some("error")));
}

#[test]
fn a_missing_file_is_not_found() {
    let output = decode(&["no-such-file.bin"], b"");
    assert_eq!(output.status.code(), Some(3));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("could not open no-such-file.bin") && text.contains("hint: "), "{text}");
}

#[test]
fn usage_errors_have_their_code_and_shells_their_completions() {
    let run =
        |arguments: &[&str]| Command::new(env!("CARGO_BIN_EXE_vortex")).args(arguments).output().unwrap();
    assert_eq!(run(&["no-such-command"]).status.code(), Some(2));
    for shell in ["bash", "zsh", "fish"] {
        let output = run(&["completions", shell]);
        assert!(
            output.status.success() && String::from_utf8(output.stdout).unwrap().contains("decode"),
            "{shell}"
        );
    }
    assert!(String::from_utf8(run(&["man"]).stdout).unwrap().contains(".TH vortex 1"));
}

/// The chapter on errors has two tables of names: what makes bytes no packet, and what keeps a tool from having bytes.
#[test]
fn the_names_of_errors_are_those_of_the_specification() {
    let chapter = crate::committed::read("book/src/spec/errors.md");
    let (_, tables) = chapter.split_once("## Decode errors").unwrap();
    let name = |line: &str| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned());
    let names: Vec<String> = tables.lines().filter_map(name).collect();
    let (decode_errors, of_tools) = names.split_at(names.len() - 2);
    let all = [
        DecodeError::Truncated { have: 0, need: 6 },
        DecodeError::TooLong { header: Header { id: 0, tag: Tag::Error, length: u32::MAX } },
        DecodeError::BadLength { tag: Tag::Error, length: 0 },
        DecodeError::BadTaskId { at: 0, byte: 0 },
        DecodeError::BadMetadata { field: "" },
        DecodeError::BadPieceLength { length: u64::MAX },
        DecodeError::FieldTooLong { field: "", length: 0, limit: 0 },
        DecodeError::NotUtf8 { field: "" },
        DecodeError::TrailingBytes { count: 1 },
    ];
    assert_eq!(decode_errors, all.map(|error| error.name()));
    assert_eq!(of_tools, ["not-hex", "gap"]);
    let help = String::from_utf8(decode(&["--help"], b"").stdout).unwrap();
    assert!(of_tools.iter().all(|name| help.contains(name)), "{help}");
}
