//! The same bytes through this codec and through the published one, `vortex-protocol` 0.2.0.
//!
//! Both give the same verdict and the same fields, or the difference is one of `REASONS`, each of which the book's list
//! of divergences explains. A difference without a reason fails; so does a reason that never comes up.

use super::{build, generate};
use crate::committed;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use std::collections::BTreeMap;
use vortex_p2p::wire::{DecodeError, Message, Metadata, Packet, PieceKind, Tag};
use vortex_protocol::Vortex;
use vortex_protocol::tlv::piece_metadata::PieceMetadata;

/// Why the two may differ: an entry of the book's list, and what of it shows in a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Reason(&'static str, &'static str);

const TOO_LONG: Reason = Reason("DIV-07", "a Length above 16384 is refused");
const TASK_ID: Reason = Reason("DIV-13", "a task id that is not hexadecimal is refused");
const DATE: Reason = Reason("DIV-15", "a date far away is accepted");
const PIECE: Reason = Reason("DIV-16", "a piece above 1 GiB is refused");
const TEXT: Reason = Reason("DIV-17", "a long digest or parent id is refused");

const REASONS: [Reason; 5] = [TOO_LONG, TASK_ID, DATE, PIECE, TEXT];

/// What both make of `bytes`: the same, the same but for a reason, or something that has to be looked at.
fn compare(bytes: &[u8]) -> Result<Option<Reason>, String> {
    let ours = Packet::decode_exact(bytes);
    let theirs = Vortex::decode(bytes);
    match (&ours, &theirs) {
        (Err(_), Err(_)) => Ok(None),
        (Ok(ours), Ok(theirs)) => same(ours, theirs, bytes).map(|()| None),
        (Err(DecodeError::TooLong { .. }), Ok(_)) => Ok(Some(TOO_LONG)),
        (Err(DecodeError::BadTaskId { .. }), Ok(_)) => Ok(Some(TASK_ID)),
        (Err(DecodeError::BadPieceLength { .. }), Ok(_)) => Ok(Some(PIECE)),
        (Err(DecodeError::FieldTooLong { .. }), Ok(_)) => Ok(Some(TEXT)),
        (Ok(Packet { message: Message::Content(_, metadata), .. }), Err(error))
            if error.to_string().contains("created_at") && !a_usual_date(metadata.created_at) =>
        {
            Ok(Some(DATE))
        }
        _ => Err(format!("ours: {ours:?}\ntheirs: {theirs:?}")),
    }
}

/// Within the years that the other codec's time library can hold by a wide margin: ten thousand before and after 1970.
fn a_usual_date(seconds: i64) -> bool {
    seconds.abs() < 10_000 * 31_556_952
}

fn same(ours: &Packet<'_>, theirs: &Vortex, bytes: &[u8]) -> Result<(), String> {
    let header = theirs.header();
    if (ours.id, u8::from(ours.message.tag())) != (header.id(), u8::from(header.tag())) {
        return Err(format!("ours: {ours:?}\ntheirs: {header:?}"));
    }
    let fields = match (&ours.message, theirs) {
        (Message::Download(download), theirs) if is_request(theirs) => {
            let (kind, task_id, number) = request(theirs);
            (download.kind, download.task_id.as_str(), download.number) == (kind, task_id, number)
        }
        (Message::Content(kind, ours), theirs) => {
            metadata(theirs).is_some_and(|(other, theirs)| *kind == other && same_metadata(ours, theirs))
        }
        // The other codec keeps nothing of these.
        (Message::Reserved(_, value), Vortex::Reserved(header)) => value.len() == header.length() as usize,
        (Message::Close, Vortex::Close(_)) => true,
        (Message::Error(ours), Vortex::Error(_, theirs)) => {
            u8::from(ours.code) == u8::from(theirs.code) && ours.message.as_str() == theirs.message
        }
        _ => false,
    };
    if !fields {
        return Err(format!("ours: {ours:?}\ntheirs: {theirs:?}"));
    }
    // Both drop what they did not understand; only ours keeps the value of a reserved tag.
    let (mut again, mut theirs_again) = (Vec::new(), Vec::new());
    ours.encode(&mut again);
    theirs.encode(&mut theirs_again);
    if again != theirs_again && !matches!(ours.message, Message::Reserved(..)) {
        return Err(format!("of {bytes:02x?}\nours: {again:02x?}\ntheirs: {theirs_again:02x?}"));
    }
    Ok(())
}

fn is_request(packet: &Vortex) -> bool {
    u8::from(packet.header().tag()) < 8 && u8::from(packet.header().tag()) % 2 == 0
}

fn request(packet: &Vortex) -> (PieceKind, &str, u32) {
    match packet {
        Vortex::DownloadPiece(_, it) => (PieceKind::Piece, &it.task_id, it.piece_number),
        Vortex::DownloadPersistentPiece(_, it) => (PieceKind::Persistent, &it.task_id, it.piece_number),
        Vortex::DownloadPersistentCachePiece(_, it) => {
            (PieceKind::PersistentCache, &it.task_id, it.piece_number)
        }
        Vortex::DownloadCachePiece(_, it) => (PieceKind::Cache, &it.task_id, it.piece_number),
        other => panic!("no request: {other:?}"),
    }
}

fn metadata(packet: &Vortex) -> Option<(PieceKind, &PieceMetadata)> {
    Some(match packet {
        Vortex::PieceContent(_, it) => (PieceKind::Piece, &it.metadata),
        Vortex::PersistentPieceContent(_, it) => (PieceKind::Persistent, &it.metadata),
        Vortex::PersistentCachePieceContent(_, it) => (PieceKind::PersistentCache, &it.metadata),
        Vortex::CachePieceContent(_, it) => (PieceKind::Cache, &it.metadata),
        _ => return None,
    })
}

fn same_metadata(ours: &Metadata<'_>, theirs: &PieceMetadata) -> bool {
    ours.number == theirs.number
        && ours.offset == theirs.offset
        && u64::from(ours.length) == theirs.length
        && ours.digest.as_str() == theirs.digest
        && ours.parent_id.as_str() == theirs.parent_id
        && ours.traffic_type.0 == theirs.traffic_type
        && ours.cost == theirs.cost.as_secs()
        && ours.created_at == theirs.created_at.and_utc().timestamp()
}

proptest! {
    #![proptest_config(super::cases(2048))]

    #[test]
    fn what_may_be_sent_is_the_same_to_both(owned in generate::packet()) {
        match compare(&owned.bytes()) {
            Ok(None | Some(DATE)) => {}
            other => return Err(TestCaseError::fail(format!("{other:?}"))),
        }
    }

    #[test]
    fn every_difference_has_a_reason(bytes in generate::nearly()) {
        compare(&bytes).map_err(TestCaseError::fail)?;
    }
}

/// The same packets in every run, so that whether a reason comes up is no matter of luck.
#[test]
#[cfg_attr(
    miri,
    ignore = "it draws packets for hours; a few of the same kind are compared by the property above"
)]
fn every_reason_comes_up_and_is_in_the_book() {
    const TRIED: u32 = 20_000;
    let mut runner = TestRunner::deterministic();
    let mut seen: BTreeMap<Reason, u32> = BTreeMap::new();
    let mut agreed = 0;
    for _ in 0..TRIED {
        let bytes = generate::nearly().new_tree(&mut runner).unwrap().current();
        match compare(&bytes).unwrap() {
            Some(reason) => *seen.entry(reason).or_default() += 1,
            None => agreed += u32::from(Packet::decode_exact(&bytes).is_ok()),
        }
    }
    assert!(agreed > TRIED / 10, "only {agreed} packets of {TRIED} that both take");
    let book = committed::read("book/src/spec/divergences.md");
    for reason in REASONS {
        let count = seen.remove(&reason).unwrap_or_default();
        assert!(count > 0, "{reason:?} never came up");
        assert!(book.contains(&format!("| {} |", reason.0)), "{reason:?} is not in the book");
    }
    assert_eq!(seen, BTreeMap::new(), "reasons that are not listed");
}

/// Every tag has the same meaning to both.
#[test]
fn tags_agree() {
    for tag in 0..=255u8 {
        let theirs = vortex_protocol::tlv::Tag::from(tag);
        assert_eq!(u8::from(theirs), u8::from(Tag::from(tag)));
        assert_eq!(compare(&build::packet(1, tag, &[])), Ok(None), "tag {tag}");
    }
}
