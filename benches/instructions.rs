//! Fixed work, counted in instructions: a guard that no busy machine disturbs.
//!
//!     cargo bench --features tokio-runtime --bench instructions               counts, and compares with instructions.txt
//!     cargo bench --features tokio-runtime --bench instructions -- --write    writes the counts down
//!
//! Each work runs twice in a process of its own, so many times and three times as many, under valgrind's cachegrind. The
//! difference leaves out what a process and a world cost to begin. Nothing in it asks the kernel or the clock for much.
//!
//! valgrind shows a program the same processor on every x86-64 machine that has AVX2, and so the C library and crc32fast
//! choose the same code; what they do to a piece is kept small beside the rest. Another compiler counts differently, for
//! it inlines differently: that is what the tolerance is for, and why the counts name their compiler. On another
//! architecture nothing is compared.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a benchmark that fails says where")]

use bytes::Bytes;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hint::black_box;
use std::process::{Command, ExitCode};
use vortex_p2p::session::{Answer, AnswerStep, Ask, ClientEvent, ClientRequest, Incoming, RequestReader};
use vortex_p2p::wire::{
    Algorithm, Bounded, Digest, Download, Message, Metadata, Packet, PieceKind, PieceLength, TaskId,
    TrafficType,
};

#[path = "instructions/transfer.rs"]
mod transfer;

/// Percent that a count may differ from what was written down. Two runs agree to the instruction; another version of the
/// compiler or of a dependency does not. Where it does by more, for a good reason, the counts are written down again.
const TOLERANCE: f64 = 2.0;
/// How often a work is done to be counted.
const TIMES: u32 = 1000;
const COUNTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.txt");

type Work = fn(u32);

const WORKS: [(&str, Work); 6] = [
    ("request-encode", request_encode),
    ("request-decode", request_decode),
    ("metadata-encode", metadata_encode),
    ("metadata-decode", metadata_decode),
    ("session", session),
    ("transfer", transfer::run),
];

/// Content bytes of a piece.
const PIECE: usize = 256;

fn download() -> Download {
    Download { kind: PieceKind::Piece, task_id: TaskId::from_sha256([0x5A; 32]), number: 41 }
}

fn metadata(digest: &str) -> Metadata<'_> {
    Metadata {
        number: 41,
        offset: 41 << 22,
        length: PieceLength::try_from(PIECE as u64).unwrap(),
        digest: Bounded::new(digest).unwrap(),
        parent_id: Bounded::new("192.168.10.27-dfdaemon-7f9c6-3a0c9f5e-8d1b-4a67-9c55-6f5b0f4f6a11").unwrap(),
        traffic_type: TrafficType::REMOTE_PEER,
        cost: 3,
        created_at: 1_767_225_600,
    }
}

fn request_encode(times: u32) {
    let (download, mut buffer) = (download(), Vec::with_capacity(256));
    for _ in 0..times {
        buffer.clear();
        Packet { id: 7, message: Message::Download(*black_box(&download)) }.encode(&mut buffer);
        black_box(&buffer);
    }
}

fn request_decode(times: u32) {
    let bytes = download().encode(7);
    for _ in 0..times {
        black_box(Packet::decode_exact(black_box(&bytes)).unwrap());
    }
}

fn metadata_encode(times: u32) {
    let (metadata, mut buffer) = (metadata("crc32:2253110020"), Vec::with_capacity(256));
    for _ in 0..times {
        buffer.clear();
        black_box(&metadata).encode(7, PieceKind::Piece, &mut buffer);
        black_box(&buffer);
    }
}

fn metadata_decode(times: u32) {
    let mut bytes = Vec::new();
    metadata("crc32:2253110020").encode(7, PieceKind::Piece, &mut bytes);
    for _ in 0..times {
        black_box(Packet::decode_exact(black_box(&bytes)).unwrap());
    }
}

/// A request and its answer through the state machines of both sides, with nothing between them.
fn session(times: u32) {
    let content = Bytes::from(vec![0xA5; PIECE]);
    let digest = Digest::of(Algorithm::Crc32, &content);
    let text = digest.to_text();
    let metadata = metadata(text.as_str());
    for id in 0..times {
        let ask = Ask::new(download());
        let request = ask.download.encode(id as u8);
        let mut client = ClientRequest::new(ask);
        let mut reader = RequestReader::new();
        let Some(Incoming::Request { id, download }) = reader.receive(&mut request.as_slice()) else {
            panic!("the request was not read")
        };
        let mut answer = Answer::new(id, download.kind, &metadata, digest);
        let mut received = 0;
        loop {
            let mut part = match answer.step() {
                AnswerStep::Send(head) => head,
                AnswerStep::Content { .. } => {
                    answer.content(&content).unwrap();
                    content.clone()
                }
                AnswerStep::Done => break,
            };
            while !part.is_empty() {
                if let Some(ClientEvent::Content(bytes)) = client.receive(&mut part).unwrap() {
                    received += bytes.len();
                }
            }
        }
        assert_eq!(received, PIECE);
        assert_eq!(client.finish().unwrap().verified, Some(digest));
    }
}

/// Instructions of a process that does the work so many times.
fn instructions(name: &str, times: u32) -> u64 {
    let run = Command::new("valgrind")
        .args(["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"])
        .arg(std::env::current_exe().unwrap())
        .args(["--work", name, &times.to_string()])
        .output()
        .unwrap_or_else(|error| panic!("valgrind is not there: {error}"));
    let told = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{told}");
    let line = told.lines().find_map(|line| line.split_once("refs:"));
    let digits: String = line.unwrap_or_else(|| panic!("no count in {told}")).1.replace(',', "");
    digits.trim().parse().unwrap()
}

fn counted(name: &str) -> u64 {
    instructions(name, 3 * TIMES).saturating_sub(instructions(name, TIMES)) / u64::from(2 * TIMES)
}

/// What was written down.
fn committed() -> BTreeMap<String, u64> {
    let text = std::fs::read_to_string(COUNTS).unwrap_or_default();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.split_once(' '))
        .map(|(name, count)| (name.to_owned(), count.trim().parse().unwrap()))
        .collect()
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, name, times] = arguments.as_slice()
        && flag == "--work"
    {
        let work = WORKS.iter().find(|(known, _)| known == name).unwrap().1;
        work(times.parse().unwrap());
        return ExitCode::SUCCESS;
    }
    if !cfg!(target_arch = "x86_64") {
        println!("the counts are those of x86-64; nothing is compared here");
        return ExitCode::SUCCESS;
    }
    let compiler = Command::new("rustc").arg("--version").output().unwrap().stdout;
    let mut text = format!("# Instructions each time, x86-64, {}", String::from_utf8_lossy(&compiler));
    let (committed, mut beyond) = (committed(), false);
    for (name, _) in WORKS {
        let count = counted(name);
        writeln!(text, "{name} {count}").unwrap();
        let before = committed.get(name).copied().unwrap_or_default();
        let change = 100.0 * (count as f64 / before as f64 - 1.0);
        let far = before == 0 || change.abs() > TOLERANCE;
        println!(
            "{name:>16} {count:>7}, was {before:>7} {change:>+6.1} %{}",
            if far { "  <-- beyond" } else { "" }
        );
        beyond |= far;
    }
    if arguments.iter().any(|argument| argument == "--write") {
        std::fs::write(COUNTS, text).unwrap();
        return ExitCode::SUCCESS;
    }
    if beyond {
        println!(
            "more than {TOLERANCE} % from benches/instructions.txt: find the reason, or write down what is better"
        );
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
