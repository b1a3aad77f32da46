//! Captures: read whole, put in order, and never trusted.

pub(crate) mod write;

use allocation_counter::measure;
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::io::Cursor;
use vortex_p2p::pcap::{Capture, CaptureError, Event, FlowId, Flows, Frame, Segment, is_capture, segment};
use vortex_p2p::wire::{DecodeError, Packet};
use write::{Format, Link, Net, capture, frame};

/// The bytes of a direction, and how it ended.
type Stream = (Vec<u8>, Option<&'static str>);

/// What the directions of a capture carried, and how each ended.
fn streams(file: &[u8]) -> Result<BTreeMap<FlowId, Stream>, CaptureError> {
    let mut capture = Capture::open(Cursor::new(file))?;
    let mut flows = Flows::default();
    let mut found: BTreeMap<FlowId, Stream> = BTreeMap::new();
    let mut sink = |id, event: Event<'_>| {
        let flow = found.entry(id).or_default();
        match event {
            Event::Data(bytes) => flow.0.extend(bytes),
            Event::End => flow.1 = Some("end"),
            Event::Gap => flow.1 = Some("gap"),
        }
        Ok::<(), CaptureError>(())
    };
    while let Some(frame) = capture.next_frame()? {
        if let Some(segment) = segment(frame) {
            flows.push(&segment, &mut sink)?;
        }
    }
    flows.finish(&mut sink)?;
    Ok(found)
}

/// A stream as segments: cut, some sent twice or longer than needed, in another order.
fn segments() -> impl Strategy<Value = (Vec<u8>, Vec<(usize, Vec<u8>)>)> {
    let cuts = vec(any::<prop::sample::Index>(), 0..12);
    (vec(any::<u8>(), 1..2000), cuts, vec(0..40usize, 24), vec(any::<bool>(), 24), 0..10_000usize).prop_map(
        |(bytes, cuts, overlap, twice, seed)| {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let mut parts = Vec::new();
            for (at, pair) in cuts.windows(2).enumerate() {
                let start = pair[0].saturating_sub(overlap[at % overlap.len()]);
                parts.push((start, bytes[start..pair[1]].to_vec()));
                if twice[at % twice.len()] {
                    parts.push((pair[0], bytes[pair[0]..pair[1]].to_vec()));
                }
            }
            // The first segment stays first: it says where the stream begins.
            let count = parts.len();
            for at in 1..count {
                parts.swap(at, 1 + (at * 7 + seed) % (count - 1).max(1));
            }
            (bytes, parts)
        },
    )
}

proptest! {
    #[test]
    fn segments_are_put_in_order(
        (bytes, parts) in segments(),
        first in any::<u32>(),
        format in prop::sample::select(&Format::ALL[..]),
        link in prop::sample::select(&Link::ALL[..]),
        net in prop::sample::select(&[Net::V4, Net::V6][..]),
    ) {
        let mut frames = vec![frame(link, net, first, 0x02, &[])];
        let begin = first.wrapping_add(1);
        for (at, part) in &parts {
            frames.push(frame(link, net, begin.wrapping_add(*at as u32), 0x18, part));
        }
        frames.push(frame(link, net, begin.wrapping_add(bytes.len() as u32), 0x11, &[]));
        let found = streams(&capture(format, link, &frames)).unwrap();
        prop_assert_eq!(found.len(), 1);
        prop_assert_eq!(found.values().next().unwrap(), &(bytes, Some("end")));
    }

    #[test]
    fn damaged_captures_never_panic(
        (_, parts) in segments(),
        format in prop::sample::select(&Format::ALL[..]),
        damages in vec(crate::wire::damage(), 1..6),
    ) {
        let frames: Vec<_> = parts.iter().map(|(at, part)| frame(Link::Ethernet, Net::V6, *at as u32, 0x18, part)).collect();
        let file = capture(format, Link::Ethernet, &frames);
        let damaged = damages.iter().fold(file, |file, damage| damage.apply(file));
        let _ = streams(&damaged);
    }

    #[test]
    fn any_bytes_are_a_frame_or_not(link in prop::sample::select(&[0u16, 1, 12, 101, 113, 276, 999][..]), bytes in vec(any::<u8>(), 0..120)) {
        if let Some(segment) = segment(Frame { link, bytes: &bytes }) {
            prop_assert!(segment.payload.len() < bytes.len());
        }
    }

    #[test]
    fn any_segments_are_followed(
        segments in vec((0..3u16, any::<u32>(), 0..8u8, vec(any::<u8>(), 0..50), 0..9usize), 0..60),
    ) {
        let mut flows = Flows::default();
        let mut sink = |_, _: Event<'_>| Ok::<(), ()>(());
        for (port, sequence, flags, payload, missing) in &segments {
            let (syn, fin, rst) = (flags & 1 != 0, flags & 2 != 0, flags & 4 != 0);
            let (source, destination) = (address(*port), address(4005));
            let segment = Segment { source, destination, sequence: *sequence, syn, fin, rst, payload, missing: *missing };
            flows.push(&segment, &mut sink).unwrap();
        }
        flows.finish(&mut sink).unwrap();
    }
}

fn address(port: u16) -> std::net::SocketAddr {
    ([10, 0, 0, 1], port).into()
}

/// Segments that never fit together cost no more than the bound, and end as a gap.
#[test]
fn waiting_segments_are_bounded() {
    let payload = vec![0; 1400];
    let mut gaps = 0;
    let info = measure(|| {
        let mut flows = Flows::default();
        for at in 0..20_000u32 {
            let sequence = if at == 0 { 0 } else { at * 1400 + 1 };
            let (source, destination) = (address(1), address(2));
            let payload = if at == 0 { &[][..] } else { &payload };
            let segment = Segment {
                source,
                destination,
                sequence,
                syn: false,
                fin: false,
                rst: false,
                payload,
                missing: 0,
            };
            flows
                .push(&segment, &mut |_, event| {
                    gaps += u32::from(event == Event::Gap);
                    Ok::<(), ()>(())
                })
                .unwrap();
        }
    });
    assert_eq!(gaps, 1);
    assert!(info.bytes_max < 6 << 20, "{info:?}");
}

/// A length in the file is believed when its bytes are there.
#[test]
fn a_frame_that_declares_too_much_costs_nothing() {
    let mut file = capture(Format::Little, Link::Ethernet, &[]);
    file.extend([0; 8]);
    file.extend(u32::MAX.to_le_bytes());
    file.extend([0; 4]);
    let mut result = None;
    let info = measure(|| result = Some(streams(&file)));
    assert!(matches!(result, Some(Err(CaptureError::Length { length: u32::MAX, .. }))));
    assert!(info.bytes_max < 4096, "{info:?}");
    file.truncate(file.len() - 8);
    file.extend(262_144u32.to_le_bytes());
    file.extend([0; 4]);
    let info = measure(|| result = Some(streams(&file)));
    assert!(matches!(result, Some(Err(CaptureError::Io(_)))));
    assert!(info.bytes_max < 65_536, "{info:?}");
}

#[test]
fn a_missing_segment_is_a_gap() {
    let of = |at, part: &[u8]| frame(Link::Ethernet, Net::V4, at, 0x18, part);
    let file = capture(Format::NextBig, Link::Ethernet, &[of(100, b"abc"), of(104, b"efg")]);
    let found = streams(&file).unwrap();
    assert_eq!(found.values().next().unwrap(), &(b"abc".to_vec(), Some("gap")));
}

/// The same ports, used twice.
#[test]
fn another_connection_begins_anew() {
    let of = |at, flags, part: &[u8]| frame(Link::Raw, Net::V4, at, flags, part);
    let frames = [
        of(100, 0x02, b""),
        of(101, 0x18, b"abc"),
        of(100, 0x02, b""),
        of(9000, 0x02, b""),
        of(9001, 0x18, b"def"),
    ];
    let found = streams(&capture(Format::Big, Link::Raw, &frames)).unwrap();
    assert_eq!(found.values().next().unwrap(), &(b"abcdef".to_vec(), Some("end")));
}

/// What begins as a capture is not the begin of a Vortex stream.
#[test]
fn a_capture_is_no_packet() {
    for first in [
        [0xA1, 0xB2, 0xC3, 0xD4],
        [0xD4, 0xC3, 0xB2, 0xA1],
        [0x0A, 0x0D, 0x0D, 0x0A],
        [0x4D, 0x3C, 0xB2, 0xA1],
    ] {
        assert!(is_capture(first));
        let header = [first[0], first[1], first[2], first[3], 0, 0];
        assert!(matches!(Packet::decode(&header), Err(DecodeError::TooLong { .. })));
    }
    assert!(!is_capture(*b"GET "));
}
