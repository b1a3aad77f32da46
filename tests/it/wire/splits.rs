//! However the transport splits the bytes.

use super::generate;
use proptest::collection::vec;
use proptest::prelude::*;
use vortex_p2p::wire::{DecodeError, Decoder, Message, Packet, limits};

/// What a stream turns out to hold.
#[derive(Debug, Clone, PartialEq)]
enum Event {
    /// A packet as it is encoded again, and the content that follows it.
    Packet(Vec<u8>, Vec<u8>),
    /// A packet that is refused: the error, and the id under which to answer.
    Refused(DecodeError, u8),
}

#[derive(Debug, PartialEq)]
struct Outcome {
    events: Vec<Event>,
    end: Result<(), &'static str>,
}

/// Packets at their places in the whole stream, without a decoder that remembers anything.
fn by_offset(mut bytes: &[u8]) -> Outcome {
    let mut events = Vec::new();
    while !bytes.is_empty() {
        match Packet::decode(bytes) {
            Ok((packet, rest)) => {
                let mut again = Vec::new();
                packet.encode(&mut again);
                let length = content_length(&packet).min(rest.len());
                events.push(Event::Packet(again, rest[..length].to_vec()));
                bytes = &rest[length..];
            }
            Err(DecodeError::Truncated { .. }) => return Outcome { events, end: Err("truncated") },
            Err(error) => {
                events.push(Event::Refused(error, bytes[0]));
                if !error.is_recoverable() {
                    return Outcome { events, end: Ok(()) };
                }
                let length = u32::from_be_bytes(bytes[2..6].try_into().unwrap()) as usize;
                bytes = bytes.get(6 + length..).unwrap_or_default();
            }
        }
    }
    Outcome { events, end: Ok(()) }
}

fn content_length(packet: &Packet<'_>) -> usize {
    match packet.message {
        Message::Content(_, metadata) => metadata.length.get() as usize,
        _ => 0,
    }
}

/// The same through one decoder that is given `chunks`.
fn by_chunks<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let mut decoder = Decoder::new();
    let mut events = Vec::new();
    let mut content = 0;
    for mut input in chunks {
        loop {
            if content > 0 {
                let taken = content.min(input.len());
                if let Some(Event::Packet(_, bytes)) = events.last_mut() {
                    bytes.extend(&input[..taken]);
                }
                content -= taken;
                input = &input[taken..];
                if content > 0 {
                    break;
                }
            }
            match decoder.decode(&mut input) {
                Ok(None) => {
                    assert!(input.is_empty(), "all bytes are taken where there is no packet");
                    break;
                }
                Ok(Some(packet)) => {
                    let mut again = Vec::new();
                    packet.encode(&mut again);
                    content = content_length(&packet);
                    let id = packet.id;
                    events.push(Event::Packet(again, Vec::new()));
                    assert_eq!(decoder.packet_id(), id);
                    assert!(decoder.is_idle(), "a packet has ended here");
                }
                Err(error) => {
                    events.push(Event::Refused(error, decoder.packet_id()));
                    if !error.is_recoverable() {
                        assert_eq!(decoder.decode(&mut input), Err(error), "it stays so");
                        return Outcome { events, end: Ok(()) };
                    }
                }
            }
        }
    }
    Outcome { events, end: decoder.finish().map_err(|error| error.name()) }
}

proptest! {
    #![proptest_config(super::cases(512))]

    //= VTX-FRM-009 test
    //= VTX-FRM-014 test
    //= VTX-TAG-002 test
    #[test]
    fn splits_do_not_matter(bytes in generate::stream(), cuts in vec(any::<prop::sample::Index>(), 0..12)) {
        let expected = by_offset(&bytes);
        prop_assert_eq!(&by_chunks([&bytes[..]]), &expected);

        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let chunks = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]);
        prop_assert_eq!(&by_chunks(chunks), &expected);
    }

    #[test]
    fn bytes_may_come_one_by_one(bytes in generate::stream()) {
        prop_assert_eq!(by_chunks(bytes.chunks(1)), by_offset(&bytes));
    }

    //= VTX-FRM-013 test
    #[test]
    fn a_header_is_judged_without_its_value(bytes in any::<[u8; 6]>(), split in 0..=6usize) {
        let (packet, mut decoder) = (Packet::decode(&bytes), Decoder::new());
        let mut first = &bytes[..split];
        let early = decoder.decode(&mut first).map(|packet| packet.is_some());
        let verdict = if split == 6 { early } else {
            prop_assert_eq!(early, Ok(false));
            decoder.decode(&mut &bytes[split..]).map(|packet| packet.is_some())
        };
        match packet {
            Err(DecodeError::Truncated { .. }) => prop_assert_eq!(verdict, Ok(false)),
            Err(error) => prop_assert_eq!(verdict, Err(error)),
            Ok(_) => prop_assert_eq!(verdict, Ok(true)),
        }
    }
}

/// A refused packet is passed over while its value arrives, and only then is there a place between two packets.
#[test]
fn a_refused_value_is_passed_over() {
    let mut decoder = Decoder::new();
    let bad = super::build::packet(9, 0x00, &[0; 100]);
    let mut input = &bad[..6];
    assert_eq!(decoder.decode(&mut input).unwrap_err().name(), "bad-length");
    assert_eq!((decoder.packet_id(), decoder.is_idle()), (9, false));
    assert_eq!(decoder.decode(&mut &bad[6..105]), Ok(None));
    assert!(!decoder.is_idle());
    let mut input = &[bad[105], 4, 0xFE, 0, 0, 0, 0, 5][..];
    assert_eq!(decoder.decode(&mut input), Ok(Some(Packet { id: 4, message: Message::Close })));
    assert_eq!(input, [5]);
    assert!(decoder.is_idle());
    assert_eq!(decoder.finish(), Ok(()));
}

#[test]
fn the_end_within_a_packet_says_what_is_missing() {
    let mut decoder = Decoder::new();
    assert_eq!(decoder.finish(), Ok(()));
    decoder.decode(&mut &[1, 0xFE][..]).unwrap();
    assert_eq!(decoder.finish(), Err(DecodeError::Truncated { have: 2, need: limits::HEADER_LEN }));
    decoder.decode(&mut &[0, 0, 0, 9, 1][..]).unwrap();
    assert_eq!(decoder.finish(), Err(DecodeError::Truncated { have: 7, need: 15 }));
}
