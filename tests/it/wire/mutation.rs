//! Whatever arrives.

use super::generate;
use proptest::prelude::*;
use vortex_p2p::wire::{
    DecodeError, Decoder, DigestClaim, Division, Header, Packet, PieceLength, Tag, annotate,
};

proptest! {
    #![proptest_config(super::cases(2048))]

    #[test]
    fn damaged_bytes_never_panic(bytes in generate::nearly()) {
        let packet = Packet::decode_exact(&bytes);
        let annotated = annotate(&bytes);
        prop_assert_eq!(annotated.packet, packet);
        let covered: usize = annotated.fields.iter().map(|field| field.length).sum();
        prop_assert_eq!(covered + annotated.rest().len(), bytes.len());
        // Neither what is shown of a packet nor of an error steers a terminal.
        let shown = format!("{annotated}{annotated:?}{packet:?}");
        prop_assert!(!shown.contains(|c: char| c.is_control() && c != '\n'), "{shown:?}");
        let _ = Decoder::new().decode(&mut &bytes[..]);
    }

    #[test]
    fn any_text_is_a_digest_or_not(text in any::<String>()) {
        if let Ok(claim) = DigestClaim::parse(&text) {
            prop_assert!(text.starts_with(claim.algorithm().name()));
        }
    }

    #[test]
    fn any_division_is_made_or_refused(length in any::<u64>(), piece in any::<u64>(), number in any::<u32>()) {
        let _ = Division::by_default(length).map(|division| division.piece(number));
        if let Ok(piece) = PieceLength::try_from(piece) {
            let _ = Division::new(length, piece).map(|division| division.piece(number));
        }
    }
}

/// Which errors leave the place of the next packet known.
#[test]
fn only_an_unknown_end_cannot_be_passed_over() {
    let cases = [
        (DecodeError::Truncated { have: 1, need: 6 }, false),
        (DecodeError::TooLong { header: Header { id: 0, tag: Tag::Close, length: 16_385 } }, false),
        (DecodeError::BadMetadata { field: "number" }, true),
        (DecodeError::BadPieceLength { length: u64::MAX }, true),
        (DecodeError::NotUtf8 { field: "the digest" }, true),
        (DecodeError::BadTaskId { at: 3, byte: b'g' }, true),
    ];
    for (error, recoverable) in cases {
        assert_eq!(error.is_recoverable(), recoverable, "{error}");
        assert!(error.to_string().starts_with(error.name()));
    }
}

/// Types and versions of the records of TLS, as RFC 8446 has them, in every header.
#[test]
fn no_header_of_a_packet_begins_a_record_of_tls() {
    for (id, tag) in (0..=255).flat_map(|id| (0..=255).map(move |tag| (id, tag))) {
        for third in (0..=5).chain([255]) {
            for rest in [0, 255] {
                let header = Header::decode([id, tag, third, rest, rest, rest]);
                let versions = [[3, 1], [3, 2], [3, 3], [3, 4]];
                let begins = [0x14, 0x15, 0x16, 0x17].contains(&id) && versions.contains(&[tag, third]);
                assert_eq!(header.is_tls_record(), begins, "{header:?}");
                assert!(!begins || header.check() == Err(DecodeError::TooLong { header }), "{header:?}");
            }
        }
    }
}
