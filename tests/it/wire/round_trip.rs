//! Packets to bytes and back.

use super::build;
use super::generate::{self, Owned};
use proptest::prelude::*;
use vortex_p2p::wire::{FieldValue, Header, Message, Metadata, Packet, PieceKind, Tag, annotate, limits};

fn encoded(packet: &Packet<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet.encode(&mut bytes);
    bytes
}

proptest! {
    //= VTX-FRM-001 test
    //= VTX-FRM-002 test
    //= VTX-FRM-003 test
    //= VTX-FRM-004 test
    //= VTX-FRM-005 test
    //= VTX-REQ-001 test
    //= VTX-CNT-001 test
    //= VTX-CNT-002 test
    //= VTX-CNT-005 test
    //= VTX-ERR-001 test
    //= VTX-CLS-001 test
    #[test]
    fn every_packet_has_the_bytes_that_the_text_gives_it(owned in generate::packet()) {
        prop_assert_eq!(encoded(&owned.packet()), owned.bytes());
    }

    //= VTX-REQ-004 test
    //= VTX-CNT-016 test
    //= VTX-ERR-002 test
    //= VTX-ERR-005 test
    #[test]
    fn every_packet_decodes_to_itself(owned in generate::packet(), after in any::<Vec<u8>>()) {
        let mut bytes = owned.bytes();
        prop_assert_eq!(Packet::decode_exact(&bytes), Ok(owned.packet()));
        bytes.extend(&after);
        prop_assert_eq!(Packet::decode(&bytes), Ok((owned.packet(), &after[..])));
        if !after.is_empty() {
            //= VTX-FRM-015 test
            prop_assert_eq!(Packet::decode_exact(&bytes).unwrap_err().name(), "trailing-bytes");
        }
    }

    /// What decodes, encodes to something that decodes to the same.
    #[test]
    fn decoding_is_stable(bytes in generate::nearly()) {
        if let Ok(packet) = Packet::decode_exact(&bytes) {
            let again = encoded(&packet);
            prop_assert!(again.len() <= bytes.len());
            prop_assert_eq!(Packet::decode_exact(&again), Ok(packet));
        }
    }

    //= VTX-FRM-008 test
    #[test]
    fn any_six_bytes_are_a_header(bytes in any::<[u8; 6]>()) {
        let header = Header::decode(bytes);
        prop_assert_eq!(header.encode(), bytes);
        prop_assert_eq!((header.id, u8::from(header.tag)), (bytes[0], bytes[1]));
    }

    //= VTX-CNT-004 test
    #[test]
    fn appended_bytes_are_ignored(owned in generate::packet(), appended in any::<Vec<u8>>()) {
        if let Owned::Content { kind, mut raw } = owned.clone() {
            raw.appended = appended;
            let bytes = raw.bytes();
            prop_assert_eq!(Packet::decode_exact(&bytes), Ok(owned.packet()), "{:?}", kind);
        }
    }

    //= VTX-CLS-002 test
    #[test]
    fn the_value_of_a_close_is_skipped(id in any::<u8>(), value in any::<Vec<u8>>()) {
        let bytes = build::packet(id, 0xFE, &value);
        prop_assert_eq!(Packet::decode_exact(&bytes), Ok(Packet { id, message: Message::Close }));
    }

    //= VTX-TAG-002 test
    #[test]
    fn reserved_values_are_kept_and_not_looked_at(
        id in any::<u8>(), tag in 0x08..=0xFDu8, value in any::<Vec<u8>>(),
    ) {
        let bytes = build::packet(id, tag, &value);
        let Ok(Packet { message: Message::Reserved(found, kept), .. }) = Packet::decode_exact(&bytes) else {
            return Err(TestCaseError::fail("not reserved"));
        };
        prop_assert_eq!((found.get(), kept), (tag, &value[..]));
    }

    /// The explanation and the decoder read the same bytes by themselves; they have to say the same.
    #[test]
    fn explanations_cover_a_packet_and_agree_with_it(owned in generate::packet()) {
        let bytes = owned.bytes();
        let annotated = annotate(&bytes);
        prop_assert_eq!(annotated.packet, Ok(owned.packet()));
        prop_assert!(annotated.rest().is_empty());
        let mut at = 0;
        for field in &annotated.fields {
            prop_assert_eq!(field.offset, at);
            at += field.length;
        }
        let value = |name| annotated.fields.iter().find(|field| field.name == name).map(|field| field.value);
        match &owned {
            Owned::Download { task_id, number, .. } => {
                prop_assert_eq!(value("task_id"), Some(FieldValue::Text(task_id)));
                prop_assert_eq!(value("number"), Some(FieldValue::Number(*number)));
            }
            Owned::Content { raw, .. } => {
                let text = |bytes| FieldValue::Text(std::str::from_utf8(bytes).unwrap());
                prop_assert_eq!(value("number"), Some(FieldValue::Number(raw.number)));
                prop_assert_eq!(value("offset"), Some(FieldValue::Unsigned(raw.offset)));
                prop_assert_eq!(value("piece_length"), Some(FieldValue::Unsigned(raw.piece_length)));
                prop_assert_eq!(value("digest"), Some(text(&raw.digest)));
                prop_assert_eq!(value("parent_id"), Some(text(&raw.parent_id)));
                prop_assert_eq!(value("traffic_type"), Some(FieldValue::Number(raw.traffic_type.into())));
                prop_assert_eq!(value("cost"), Some(FieldValue::Unsigned(raw.cost)));
                prop_assert_eq!(value("created_at"), Some(FieldValue::Signed(raw.created_at)));
            }
            Owned::Reserved { value: skipped, .. } if skipped.is_empty() => {}
            Owned::Reserved { value: skipped, .. } => {
                prop_assert_eq!(value("skipped"), Some(FieldValue::Bytes(skipped)));
            }
            Owned::Close { .. } => {}
            Owned::Error { code, message, .. } => {
                prop_assert_eq!(value("code"), Some(FieldValue::Number((*code).into())));
                prop_assert_eq!(value("message"), Some(FieldValue::Text(message)));
            }
        }
    }
}

//= VTX-TAG-001 test
#[test]
fn tags_have_the_values_of_the_registry() {
    use PieceKind::{Cache, Persistent, PersistentCache, Piece};
    let registry = [
        (0x00, Tag::Download(Piece)),
        (0x01, Tag::Content(Piece)),
        (0x02, Tag::Download(Persistent)),
        (0x03, Tag::Content(Persistent)),
        (0x04, Tag::Download(PersistentCache)),
        (0x05, Tag::Content(PersistentCache)),
        (0x06, Tag::Download(Cache)),
        (0x07, Tag::Content(Cache)),
        (0xFE, Tag::Close),
        (0xFF, Tag::Error),
    ];
    for (value, tag) in registry {
        assert_eq!((Tag::from(value), u8::from(tag)), (tag, value));
    }
    for value in 0x08..=0xFD {
        assert!(matches!(Tag::from(value), Tag::Reserved(tag) if tag.get() == value));
    }
}

/// Every code keeps its number.
#[test]
fn error_codes_keep_their_number() {
    for code in 0..=255 {
        assert_eq!(u8::from(vortex_p2p::wire::ErrorCode::from(code)), code);
    }
}

#[test]
fn the_longest_metadata_packet_has_the_length_that_is_declared() {
    let raw = build::RawContent {
        digest: vec![b'd'; limits::MAX_DIGEST_LEN],
        parent_id: vec![b'p'; limits::MAX_PARENT_ID_LEN],
        ..build::RawContent::default()
    };
    let owned = Owned::Content { kind: PieceKind::Piece, raw };
    assert_eq!(encoded(&owned.packet()).len(), Metadata::MAX_PACKET_LEN);
}
