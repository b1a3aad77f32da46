//! Packets to bytes and back, beside the published codec, `vortex-protocol` 0.2.0, in one run.
//!
//! Both write into a buffer that is there already, and read from bytes that are there. Before anything is timed, both
//! are checked to give the same bytes. What is decoded is dropped within the time, as whoever reads it would. What each
//! takes from the heap is counted by `tests/it/wire/allocation.rs`: a counter here would slow down the side that allocates.
//!
//! `book/plots/codec` runs this some times over and tabulates the ratios.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a benchmark that fails says where")]

use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use vortex_p2p::wire::{
    Bounded, Download, Message, Metadata, Packet, PieceKind, PieceLength, TaskId, TrafficType,
};
use vortex_protocol::tlv::download_piece::DownloadPiece;
use vortex_protocol::tlv::piece_content::PieceContent;
use vortex_protocol::{Header, Message as _, Vortex};

const DIGEST: &str = "crc32:2253110020";
const PARENT_ID: &str = "192.168.10.27-dfdaemon-7f9c6-3a0c9f5e-8d1b-4a67-9c55-6f5b0f4f6a11";

fn metadata() -> Metadata<'static> {
    Metadata {
        number: 41,
        offset: 41 << 22,
        length: PieceLength::try_from(4 << 20).unwrap(),
        digest: Bounded::new(DIGEST).unwrap(),
        parent_id: Bounded::new(PARENT_ID).unwrap(),
        traffic_type: TrafficType::REMOTE_PEER,
        cost: 3,
        created_at: 1_767_225_600,
    }
}

fn request(bench: &mut Criterion) {
    let task_id = TaskId::from_sha256([0x5A; 32]);
    let ours = Download { kind: PieceKind::Piece, task_id, number: 41 };
    let bytes = ours.encode(7);
    let theirs = DownloadPiece::new(task_id.to_string(), 41);
    let mut buffer = Vec::with_capacity(256);
    theirs.encode_packet(&mut buffer);
    assert_eq!(buffer.get(1..), bytes.get(1..), "but for the id, which the other codec draws");

    // Packet beside packet, each with an id that it has.
    let packet = Packet { id: 7, message: Message::Download(ours) };
    let decoded = Vortex::decode(&bytes).unwrap();
    let mut group = bench.benchmark_group("request encode");
    group.bench_function("vortex-p2p", |bench| {
        bench.iter(|| {
            buffer.clear();
            black_box(&packet).encode(&mut buffer);
            black_box(&buffer);
        });
    });
    group.bench_function("vortex-protocol", |bench| {
        bench.iter(|| {
            buffer.clear();
            black_box(&decoded).encode(&mut buffer);
            black_box(&buffer);
        });
    });
    group.finish();

    // And as a client sends it: the request alone. The published codec draws its id, which is one more random number;
    // this client draws it too, but not in here.
    let mut group = bench.benchmark_group("request as sent");
    group.bench_function("vortex-p2p", |bench| {
        bench.iter(|| {
            buffer.clear();
            buffer.extend_from_slice(&black_box(&ours).encode(black_box(7)));
            black_box(&buffer);
        });
    });
    group.bench_function("vortex-protocol", |bench| {
        bench.iter(|| {
            buffer.clear();
            black_box(&theirs).encode_packet(&mut buffer);
            black_box(&buffer);
        });
    });
    group.finish();

    let mut group = bench.benchmark_group("request decode");
    group.bench_function("vortex-p2p", |bench| {
        bench.iter(|| Packet::decode_exact(black_box(&bytes)).unwrap())
    });
    group
        .bench_function("vortex-protocol", |bench| bench.iter(|| Vortex::decode(black_box(&bytes)).unwrap()));
    group.finish();
}

fn content(bench: &mut Criterion) {
    let ours = metadata();
    let mut bytes = Vec::new();
    ours.encode(7, PieceKind::Piece, &mut bytes);
    let decoded = Vortex::decode(&bytes).unwrap();
    let mut buffer = Vec::with_capacity(256);
    decoded.encode(&mut buffer);
    assert_eq!(buffer, bytes);
    let Vortex::PieceContent(_, PieceContent { metadata: theirs }) = &decoded else { panic!("no content") };
    let header = Header::new(PieceContent::TAG, 0);
    let theirs = Vortex::PieceContent(header, PieceContent { metadata: theirs.clone() });

    let mut group = bench.benchmark_group("metadata encode");
    group.bench_function("vortex-p2p", |bench| {
        bench.iter(|| {
            buffer.clear();
            black_box(&ours).encode(7, PieceKind::Piece, &mut buffer);
            black_box(&buffer);
        });
    });
    group.bench_function("vortex-protocol", |bench| {
        bench.iter(|| {
            buffer.clear();
            black_box(&theirs).encode(&mut buffer);
            black_box(&buffer);
        });
    });
    group.finish();

    let mut group = bench.benchmark_group("metadata decode");
    group.bench_function("vortex-p2p", |bench| {
        bench.iter(|| Packet::decode_exact(black_box(&bytes)).unwrap())
    });
    group
        .bench_function("vortex-protocol", |bench| bench.iter(|| Vortex::decode(black_box(&bytes)).unwrap()));
    group.finish();
}

criterion_group!(codec, request, content);
criterion_main!(codec);
