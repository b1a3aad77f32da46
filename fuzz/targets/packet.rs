//! Any bytes as packets: one at a time, in a stream cut anywhere, explained, and encoded again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vortex_fuzz::split;
use vortex_p2p::wire::{DecodeError, Decoder, Packet, annotate};

fuzz_target!(|bytes: &[u8]| {
    let annotated = annotate(bytes);
    let mut end = 0;
    for field in &annotated.fields {
        assert_eq!(field.offset, end, "fields follow one another");
        end += field.length;
    }
    assert_eq!(annotated.rest(), &bytes[end..]);
    assert_eq!(annotated.packet, Packet::decode_exact(bytes));

    if let Ok((packet, _)) = Packet::decode(bytes) {
        let mut encoded = Vec::new();
        packet.encode(&mut encoded);
        assert_eq!(Packet::decode_exact(&encoded), Ok(packet), "encoding keeps what was decoded");
    }
    assert_eq!(whole(bytes), in_parts(bytes), "where the bytes are cut is of no account");
});

/// The packets of `bytes` by the decoder that sees all of them, and the first error.
fn whole(mut bytes: &[u8]) -> (Vec<String>, Option<DecodeError>) {
    let mut packets = Vec::new();
    while !bytes.is_empty() {
        match Packet::decode(bytes) {
            Ok((packet, rest)) => {
                packets.push(format!("{packet:?}"));
                bytes = rest;
            }
            Err(error) => return (packets, Some(error)),
        }
    }
    (packets, None)
}

/// The same by the decoder that sees them part by part.
fn in_parts(bytes: &[u8]) -> (Vec<String>, Option<DecodeError>) {
    let mut decoder = Decoder::new();
    let mut packets = Vec::new();
    for part in split(bytes) {
        let mut part = part.as_ref();
        loop {
            match decoder.decode(&mut part) {
                Ok(Some(packet)) => packets.push(format!("{packet:?}")),
                Ok(None) => break,
                Err(error) => return (packets, Some(error)),
            }
        }
        assert!(part.is_empty(), "the decoder takes all that it is given while it asks for more");
    }
    (packets, decoder.finish().err())
}
