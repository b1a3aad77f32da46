//! What decoding and encoding take from the heap. The counters are those of the thread that runs the test.

use super::{build, generate};
use allocation_counter::{AllocationInfo, measure};
use proptest::collection::vec;
use proptest::prelude::*;
use std::hint::black_box;
use vortex_p2p::wire::{Algorithm, Decoder, Digest, DigestClaim, Download, PieceKind, limits};
use vortex_p2p::wire::{Packet, TaskId};

fn assert_nothing(what: &str, info: AllocationInfo) {
    assert_eq!(info.count_total, 0, "{what} allocates: {info:?}");
}

proptest! {
    #[test]
    fn decoding_allocates_nothing(bytes in generate::nearly()) {
        let info = measure(|| { black_box(Packet::decode_exact(black_box(&bytes))).ok(); });
        prop_assert_eq!(info.count_total, 0);
    }

    #[test]
    fn encoding_allocates_nothing_beside_the_buffer(owned in generate::packet()) {
        let packet = owned.packet();
        let mut buffer = Vec::with_capacity(limits::MAX_PACKET_LEN);
        prop_assert_eq!(measure(|| black_box(&packet).encode(&mut buffer)).count_total, 0);
    }

    #[test]
    fn a_whole_packet_is_decoded_where_it_lies(owned in generate::packet()) {
        let bytes = owned.bytes();
        let info = measure(|| { black_box(Decoder::new().decode(&mut &bytes[..])).ok(); });
        prop_assert_eq!(info.count_total, 0);
    }

    //= VTX-FRM-016 test
    #[test]
    fn memory_follows_what_arrived(bytes in generate::stream(), sizes in vec(0..300usize, 1..60)) {
        let mut decoder = Decoder::new();
        let (mut at, mut held) = (0, 0);
        for size in sizes {
            let end = (at + size).min(bytes.len());
            let mut input = &bytes[at..end];
            let info = measure(|| while let Ok(Some(packet)) = decoder.decode(&mut input) {
                black_box(packet);
            });
            held += info.bytes_current;
            at = end;
            // Whatever was declared: twice what has arrived, or the smallest buffer there is.
            prop_assert!(held <= i64::try_from(2 * at).unwrap().max(16), "{held} bytes after {at}");
            prop_assert!(held <= 2 * limits::MAX_PACKET_LEN as i64);
        }
    }
}

//= VTX-FRM-016 test
#[test]
fn a_header_that_declares_four_gibibytes_costs_nothing() {
    for tag in 0..=255 {
        let bytes = build::packet_of(1, tag, u32::MAX, &[]);
        let mut decoder = Decoder::new();
        let mut name = "";
        let info = measure(|| {
            name = decoder.decode(&mut &bytes[..]).map_or_else(|error| error.name(), |_| "");
        });
        assert_eq!(name, "too-long");
        assert_nothing("a refused header", info);
    }
}

#[test]
fn a_header_at_the_limit_costs_no_more_than_itself() {
    let bytes = build::packet_of(1, 0x10, limits::MAX_VALUE_LEN, &[]);
    let mut decoder = Decoder::new();
    let info = measure(|| assert_eq!(decoder.decode(&mut &bytes[..]), Ok(None)));
    assert!(info.bytes_max <= 16, "{info:?}");
}

#[test]
fn requests_and_digests_allocate_nothing() {
    let task_id = TaskId::from_sha256([0xA5; 32]);
    assert_nothing(
        "a request",
        measure(|| {
            black_box(Download { kind: PieceKind::Piece, task_id: black_box(task_id), number: 1 }.encode(2));
        }),
    );
    for algorithm in Algorithm::ALL {
        let digest = Digest::of(algorithm, b"123456789");
        let text = digest.to_text();
        assert_nothing(
            "the text of a digest",
            measure(|| {
                black_box(black_box(digest).to_text());
            }),
        );
        assert_nothing(
            "reading a digest",
            measure(|| {
                black_box(DigestClaim::parse(black_box(text.as_str()))).ok();
            }),
        );
    }
}

/// Packets as those of `benches/codec.rs`. What the published codec takes is in the book, beside the times; counting it here
/// also shows that the counter counts.
#[test]
fn the_published_codec_allocates_texts_where_ours_lends_them() {
    let request = Download { kind: PieceKind::Piece, task_id: TaskId::from_sha256([0x5A; 32]), number: 41 };
    let request = request.encode(7);
    let metadata = build::RawContent::default().bytes();
    for (what, bytes, theirs) in [("a request", &request[..], 1), ("metadata", &metadata[..], 2)] {
        let mut buffer = Vec::with_capacity(limits::MAX_PACKET_LEN);
        let ours = measure(|| Packet::decode_exact(black_box(bytes)).unwrap().encode(&mut buffer));
        assert_nothing(what, ours);
        assert_eq!(buffer, bytes);
        buffer.clear();
        let published =
            measure(|| vortex_protocol::Vortex::decode(black_box(bytes)).unwrap().encode(&mut buffer));
        assert_eq!(published.count_total, theirs, "{what}");
        assert_eq!(buffer, bytes);
    }
}
