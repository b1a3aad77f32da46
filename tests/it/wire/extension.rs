//! The packets of the extensions, and how a client judges an answer.

use proptest::prelude::*;
use vortex_p2p::session::{ExtensionReply, Failure, Rejection, longest_reply, read_reply};
use vortex_p2p::wire::extension::{
    Availability, Capabilities, Description, Extension, ExtensionError, ExtensionRequest, Hold,
    MAX_AVAILABILITY, MAX_RANGE_LEN, RangeHead,
};
use vortex_p2p::wire::{
    Algorithm, Bounded, Digest, Division, Download, ErrorCode, ErrorMessage, Message, Packet, PieceKind,
    PieceLength, ReservedTag, TaskId, limits,
};

fn requests() -> impl Strategy<Value = ExtensionRequest> {
    let kind = proptest::sample::select(&PieceKind::ALL[..]);
    let task_id = any::<[u8; 32]>().prop_map(TaskId::from_sha256);
    (0..4, kind, task_id, any::<[u32; 3]>()).prop_map(
        |(which, kind, task_id, [a, start, length])| match which {
            0 => ExtensionRequest::Capabilities,
            1 => ExtensionRequest::Range { piece: Download { kind, task_id, number: a }, start, length },
            2 => ExtensionRequest::Description { kind, task_id },
            _ => ExtensionRequest::Availability {
                kind,
                task_id,
                first: a,
                hold: (start & 1 == 1).then_some(Hold { known: start, wait: length }),
            },
        },
    )
}

/// The value of a packet of an extension, and its tag.
fn value(packet: &[u8]) -> (u8, &[u8]) {
    match Packet::decode_exact(packet).unwrap().message {
        Message::Reserved(tag, value) => (tag.get(), value),
        other => panic!("{other:?}"),
    }
}

fn division(length: u64, piece_length: u64) -> Division {
    Division::new(length, PieceLength::try_from(piece_length).unwrap()).unwrap()
}

proptest! {
    //= VTX-EXT-006 test
    //= VTX-EXT-007 test
    //= VTX-EXT-011 test
    //= VTX-EXT-014 test
    //= VTX-EXT-016 test
    //= VTX-EXT-019 test
    #[test]
    fn requests_survive_the_wire_and_appended_bytes(request in requests(), appended in any::<Vec<u8>>()) {
        let packet = request.encode(3);
        let (tag, bytes) = value(&packet);
        prop_assert_eq!(tag, request.extension().request_tag());
        // What may be left out of an availability request is known to be left out only where nothing follows.
        let (may_follow, needed) = match request {
            ExtensionRequest::Availability { hold, .. } => (hold.is_some(), 69),
            _ => (true, bytes.len()),
        };
        let longer = if may_follow { [bytes, &appended].concat() } else { bytes.to_vec() };
        prop_assert_eq!(ExtensionRequest::decode(request.extension(), &longer), Ok(request));
        for end in 0..needed {
            prop_assert!(ExtensionRequest::decode(request.extension(), &bytes[..end]).is_err());
        }
    }

    #[test]
    fn descriptions_survive_the_wire(length: u64, piece_length in 1u64..=1 << 30, hash: Option<[u8; 32]>) {
        let Ok(division) = Division::new(length, PieceLength::try_from(piece_length).unwrap()) else {
            return Ok(());
        };
        let description = Description { division, digest: hash.map(Digest::Sha256) };
        let packet = description.encode(1);
        prop_assert_eq!(Description::decode(value(&packet).1), Ok(description));
    }

    #[test]
    fn availability_survives_the_wire(first: u32, held in proptest::collection::vec(any::<bool>(), 0..300)) {
        let availability = Availability { first, held };
        let packet = availability.encode(1);
        prop_assert_eq!(Availability::decode(value(&packet).1), Ok(availability));
    }

    //= VTX-EXT-022 test
    #[test]
    fn range_answers_are_held_against_their_request(
        piece in 1u32..1 << 20, start in 0u32..1 << 20, length in 1u32..1 << 20, said_start in 0u32..1 << 20,
    ) {
        let piece_length = PieceLength::try_from(u64::from(piece)).unwrap();
        let head = RangeHead {
            start: said_start,
            length: length.min(piece.saturating_sub(said_start)),
            piece_length,
            digest: Digest::Crc32(1),
        };
        let decoded = RangeHead::decode(value(&head.encode(1)).1, start, length);
        prop_assert_eq!(decoded.is_ok(), said_start == start && start < piece);
        let longer = RangeHead { length: head.length + 1, ..head };
        prop_assert!(RangeHead::decode(value(&longer.encode(1)).1, start, length).is_err());
    }

    #[test]
    fn replies_survive_anything(request in requests(), bytes in any::<Vec<u8>>()) {
        let answer = [&[1, request.extension().answer_tag(), 0, 0, 0, bytes.len() as u8][..], &bytes].concat();
        let _ = read_reply(&request, &bytes.into());
        let _ = read_reply(&request, &answer.into());
    }
}

#[test]
fn a_description_of_an_impossible_task_is_rejected() {
    //= VTX-EXT-015 test
    let mut packet = Description { division: division(10, 4), digest: None }.encode(1).to_vec();
    packet[14..18].fill(0);
    assert_eq!(Description::decode(&packet[6..]), Err(ExtensionError::Invalid { field: "piece length" }));
    let mut packet =
        Description { division: division(10, 4), digest: Some(Digest::Crc32(1)) }.encode(1).to_vec();
    packet[22] = b'x';
    assert_eq!(Description::decode(&packet[6..]), Err(ExtensionError::Invalid { field: "digest" }));
}

#[test]
fn a_range_that_is_not_what_its_digest_says_is_rejected() {
    //= VTX-EXT-022 test
    let piece = Download { kind: PieceKind::Piece, task_id: TaskId::from_sha256([0; 32]), number: 0 };
    let request = ExtensionRequest::Range { piece, start: 2, length: 3 };
    let piece_length = PieceLength::try_from(9).unwrap();
    let head = RangeHead { start: 2, length: 3, piece_length, digest: Digest::of(Algorithm::Crc32, b"abc") }
        .encode(1);
    let reply = |bytes: &[u8]| read_reply(&request, &[&head, bytes].concat().into());
    assert!(matches!(reply(b"abc"), Ok(Some(ExtensionReply::Range(..)))));
    assert_eq!(reply(b"abd"), Err(Rejection::Mismatch.into()));
    assert_eq!(reply(b"abcd"), Err(Rejection::Trailing.into()));
    assert!(matches!(reply(b"ab"), Err(Failure::Rejected(Rejection::Malformed(_)))));
}

#[test]
fn an_availability_answer_is_bounded() {
    let held = vec![true; MAX_AVAILABILITY as usize + 9];
    let packet = Availability { first: 0, held }.encode(1);
    assert_eq!(Availability::decode(value(&packet).1).unwrap().held.len(), MAX_AVAILABILITY as usize);
    let claim = [&[0, 0, 0, 0][..], &u32::MAX.to_be_bytes()].concat();
    assert_eq!(Availability::decode(&claim), Err(ExtensionError::Invalid { field: "count" }));
}

/// Each packet beside the bytes that the text gives it.
#[test]
fn packets_have_the_bytes_that_the_text_gives_them() {
    //= VTX-EXT-001 test
    //= VTX-EXT-007 test
    //= VTX-EXT-008 test
    //= VTX-EXT-011 test
    //= VTX-EXT-012 test
    //= VTX-EXT-016 test
    //= VTX-EXT-017 test
    //= VTX-EXT-019 test
    //= VTX-EXT-020 test
    let (kind, task_id) = (PieceKind::PersistentCache, TaskId::from_sha256([0xab; 32]));
    let id = [b'a', b'b'].repeat(32);
    let piece = Download { kind, task_id, number: 0x0102_0304 };
    let packet = |tag: u8, value: &[&[u8]]| {
        let value = value.concat();
        [&[7, tag][..], &u32::try_from(value.len()).unwrap().to_be_bytes(), &value].concat()
    };
    let four = |number: u32| number.to_be_bytes();
    let requests = [
        (ExtensionRequest::Capabilities, packet(0xF0, &[])),
        (
            ExtensionRequest::Range { piece, start: 5, length: 6 },
            packet(0xF2, &[&[4], &id, &four(0x0102_0304), &four(5), &four(6)]),
        ),
        (ExtensionRequest::Description { kind, task_id }, packet(0xF4, &[&[4], &id])),
        (
            ExtensionRequest::Availability { kind, task_id, first: 9, hold: None },
            packet(0xF6, &[&[4], &id, &four(9)]),
        ),
        (
            ExtensionRequest::Availability {
                kind,
                task_id,
                first: 9,
                hold: Some(Hold { known: 2, wait: 3 }),
            },
            packet(0xF6, &[&[4], &id, &four(9), &four(2), &four(3)]),
        ),
    ];
    for (request, expected) in requests {
        assert_eq!(request.encode(7), expected, "{request:?}");
        let tag = ReservedTag::new(expected[1]).unwrap();
        assert_eq!(Extension::asked_by(tag), Some(request.extension()));
        assert_eq!(Extension::asked_by(ReservedTag::new(expected[1] + 1).unwrap()), None);
    }
    assert_eq!(Capabilities::all().encode(7), packet(0xF1, &[&[3, 0xF2, 0xF4, 0xF6]]));
    let digest = b"crc32:7";
    let head = RangeHead {
        start: 5,
        length: 6,
        piece_length: PieceLength::try_from(11).unwrap(),
        digest: Digest::Crc32(7),
    };
    assert_eq!(head.encode(7), packet(0xF3, &[&four(5), &four(6), &four(11), &four(7), digest]));
    let description = Description { division: division(10, 4), digest: Some(Digest::Crc32(7)) };
    let expected = packet(0xF5, &[&10u64.to_be_bytes(), &four(4), &four(7), digest]);
    assert_eq!(description.encode(7), expected);
    let held = [true, false, false, false, false, false, false, true, false, true].to_vec();
    let availability = Availability { first: 2, held };
    assert_eq!(availability.encode(7), packet(0xF7, &[&four(2), &four(10), &[0b1000_0001, 0b0100_0000]]));
}

#[test]
fn capabilities_that_are_not_known_are_left_out() {
    let decoded = Capabilities::decode(&[4, 0xF2, 0xF3, 0xEE, 0xF6]).unwrap();
    assert_eq!(decoded.0, [Extension::Range, Extension::Availability]);
    assert!(Capabilities::decode(&[4, 0xF2, 0xF3, 0xEE]).is_err());
}

#[test]
fn an_availability_of_the_most_pieces_is_read_and_one_more_is_not() {
    let claim =
        |count: u32| [&[0; 4][..], &count.to_be_bytes(), &vec![0xff; count.div_ceil(8) as usize]].concat();
    assert_eq!(Availability::decode(&claim(MAX_AVAILABILITY)).unwrap().held.len(), MAX_AVAILABILITY as usize);
    let one_more = Availability::decode(&claim(MAX_AVAILABILITY + 1));
    assert_eq!(one_more, Err(ExtensionError::Invalid { field: "count" }));
}

#[test]
fn a_digest_of_the_longest_known_kind_is_read_and_a_text_beyond_the_limit_is_not() {
    let description = Description { division: division(10, 4), digest: Some(Digest::Sha512([9; 64])) };
    let packet = description.encode(1);
    assert_eq!(Description::decode(&packet[limits::HEADER_LEN..]), Ok(description));
    for length in [limits::MAX_DIGEST_LEN, limits::MAX_DIGEST_LEN + 1] {
        let claim =
            [&10u64.to_be_bytes()[..], &4u32.to_be_bytes(), &u32::try_from(length).unwrap().to_be_bytes()]
                .concat();
        // Within the limit the text itself is missed; beyond it nothing is looked for.
        let expected = match length {
            limits::MAX_DIGEST_LEN => ExtensionError::Short { field: "digest" },
            _ => ExtensionError::Invalid { field: "digest" },
        };
        assert_eq!(Description::decode(&claim), Err(expected));
    }
}

/// Every answer to every request: only its own is taken, and each refusal is told apart.
#[test]
fn an_answer_is_taken_for_its_own_request_only() {
    //= VTX-EXT-005 test
    let (kind, task_id) = (PieceKind::Piece, TaskId::from_sha256([1; 32]));
    let piece = Download { kind, task_id, number: 0 };
    let head = RangeHead {
        start: 0,
        length: 3,
        piece_length: PieceLength::try_from(9).unwrap(),
        digest: Digest::of(Algorithm::Crc32, b"abc"),
    };
    let description = Description { division: division(10, 4), digest: None };
    let availability = Availability { first: 0, held: vec![true; 3] };
    let all = [
        (
            ExtensionRequest::Capabilities,
            Capabilities::all().encode(1).to_vec(),
            ExtensionReply::Capabilities(Capabilities::all()),
        ),
        (
            ExtensionRequest::Range { piece, start: 0, length: 3 },
            [&head.encode(1), &b"abc"[..]].concat(),
            ExtensionReply::Range(head, b"abc"[..].into()),
        ),
        (
            ExtensionRequest::Description { kind, task_id },
            description.encode(1).to_vec(),
            ExtensionReply::Description(description),
        ),
        (
            ExtensionRequest::Availability { kind, task_id, first: 0, hold: None },
            availability.encode(1).to_vec(),
            ExtensionReply::Availability(availability),
        ),
    ];
    let error = |code, message| {
        let mut packet = Vec::new();
        ErrorMessage { code, message: Bounded::new(message).unwrap() }.encode(1, &mut packet);
        packet.into()
    };
    for (request, _, reply) in &all {
        for (_, answer, of) in &all {
            let read = read_reply(request, &answer.clone().into());
            if reply == of {
                assert_eq!(read.as_ref(), Ok(&Some(reply.clone())));
                assert!(answer.len() <= longest_reply(request));
            } else {
                assert!(
                    matches!(read, Err(Failure::Rejected(Rejection::NoAnswer(_)))),
                    "{request:?}: {read:?}"
                );
            }
        }
        assert_eq!(read_reply(request, &Vec::new().into()), Ok(None));
        assert_eq!(read_reply(request, &error(ErrorCode::InvalidArgument, "unknown")), Ok(None));
        let message = "gone".to_owned();
        let refused = Err(Failure::Refused { code: ErrorCode::NotFound, message });
        assert_eq!(read_reply(request, &error(ErrorCode::NotFound, "gone")), refused);
        assert_eq!(read_reply(request, &vec![1, 0xFE, 0, 0, 0, 0].into()), Err(Failure::GoingAway));
    }
    let (request, answer, _) = &all[0];
    let trailing = [answer, &b"more"[..]].concat();
    assert_eq!(read_reply(request, &trailing.into()), Err(Rejection::Trailing.into()));
}

/// A range that begins where it should is as long as was asked for, or as the piece has.
#[test]
fn a_range_of_another_length_is_rejected() {
    //= VTX-EXT-022 test
    let piece_length = PieceLength::try_from(9).unwrap();
    for (asked, told, accepted) in
        [(3, 3, true), (3, 2, false), (3, 4, false), (8, 7, true), (8, 8, false), (0, 0, false)]
    {
        let head = RangeHead { start: 2, length: told, piece_length, digest: Digest::Crc32(1) };
        let decoded = RangeHead::decode(value(&head.encode(1)).1, 2, asked);
        assert_eq!(decoded.is_ok(), accepted, "{told} of {asked}");
    }
}

#[test]
fn no_more_is_read_of_an_answer_than_it_may_have() {
    let piece = Download { kind: PieceKind::Piece, task_id: TaskId::from_sha256([1; 32]), number: 0 };
    let range = |length| longest_reply(&ExtensionRequest::Range { piece, start: 0, length });
    assert_eq!(longest_reply(&ExtensionRequest::Capabilities), limits::MAX_PACKET_LEN);
    assert_eq!(range(1000), limits::MAX_PACKET_LEN + 1000);
    assert_eq!(range(u32::MAX), limits::MAX_PACKET_LEN + MAX_RANGE_LEN as usize);
}
