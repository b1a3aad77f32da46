//! The extensions: their packets, and what servers with and without them answer.

use crate::peers::{Served, content};
use proptest::prelude::*;
use vortex_p2p::client::{ExtensionReply, Failure, Rejection, RequestError};
use vortex_p2p::server::ServerSettings;
use vortex_p2p::session::read_reply;
use vortex_p2p::wire::extension::{
    Availability, Capabilities, Description, Extension, ExtensionError, ExtensionRequest, MAX_AVAILABILITY,
    MAX_RANGE_LEN, RangeHead,
};
use vortex_p2p::wire::{
    Algorithm, Digest, Division, Download, ErrorCode, Message, Packet, PieceKind, PieceLength, TaskId,
};

fn requests() -> impl Strategy<Value = ExtensionRequest> {
    let kind = proptest::sample::select(&PieceKind::ALL[..]);
    let task_id = any::<[u8; 32]>().prop_map(TaskId::from_sha256);
    (0..4, kind, task_id, any::<[u32; 3]>()).prop_map(
        |(which, kind, task_id, [a, start, length])| match which {
            0 => ExtensionRequest::Capabilities,
            1 => ExtensionRequest::Range { piece: Download { kind, task_id, number: a }, start, length },
            2 => ExtensionRequest::Description { kind, task_id },
            _ => ExtensionRequest::Availability { kind, task_id, first: a },
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
        let longer = [bytes, &appended].concat();
        prop_assert_eq!(ExtensionRequest::decode(request.extension(), &longer), Ok(request));
        for end in 0..bytes.len() {
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

/// One request over QUIC and over TCP; the answers have to be alike.
async fn both(served: &Served, request: ExtensionRequest) -> Result<Option<ExtensionReply>, Failure> {
    let failure = |error| match error {
        RequestError::Failed(failure) => failure,
        other => panic!("{other}"),
    };
    let quic = served.quic().await.extension(&request).await.map_err(failure);
    let tcp = served.tcp().await.extension(&request).await.map_err(failure);
    assert_eq!(quic, tcp, "{request:?}");
    quic
}

#[tokio::test]
async fn extensions_are_answered_on_both_transports() {
    //= VTX-EXT-001 test
    //= VTX-EXT-002 test
    //= VTX-EXT-003 test
    //= VTX-EXT-004 test
    //= VTX-EXT-008 test
    //= VTX-EXT-012 test
    //= VTX-EXT-017 test
    //= VTX-EXT-020 test
    let served = Served::new(ServerSettings::default()).await;
    let whole = content(1000);
    let key = served.insert(PieceKind::Persistent, &whole, 300).await;
    let (kind, task_id) = (key.kind, key.id);
    let capabilities = Capabilities(vec![Extension::Range, Extension::Description, Extension::Availability]);
    let answered = both(&served, ExtensionRequest::Capabilities).await;
    assert_eq!(answered, Ok(Some(ExtensionReply::Capabilities(capabilities))));

    let answered = both(&served, ExtensionRequest::Description { kind, task_id }).await;
    let description = Description { division: division(1000, 300), digest: None };
    assert_eq!(answered, Ok(Some(ExtensionReply::Description(description))));

    for (first, held) in [(0, vec![true; 4]), (3, vec![true]), (4, vec![]), (u32::MAX, vec![])] {
        let answered = both(&served, ExtensionRequest::Availability { kind, task_id, first }).await;
        assert_eq!(answered, Ok(Some(ExtensionReply::Availability(Availability { first, held }))));
    }

    for (number, start, length, expected) in
        [(0, 0, 300, 0..300), (1, 10, 20, 310..330), (3, 99, 1000, 999..1000), (2, 299, 1, 899..900)]
    {
        let range = ExtensionRequest::Range { piece: key.piece(number), start, length };
        let Ok(Some(ExtensionReply::Range(head, bytes))) = both(&served, range).await else { panic!() };
        assert_eq!(bytes, whole.slice(expected));
        assert_eq!(head.digest, Digest::of(Algorithm::Crc32, &bytes));
    }
}

#[tokio::test]
async fn what_is_not_there_is_told_as_for_a_piece() {
    //= VTX-EXT-013 test
    //= VTX-EXT-021 test
    let served = Served::new(ServerSettings::default()).await;
    let key = served.insert(PieceKind::Piece, &content(10), 10).await;
    let (kind, task_id) = (PieceKind::Cache, key.id);
    for request in [
        ExtensionRequest::Description { kind, task_id },
        ExtensionRequest::Availability { kind, task_id, first: 0 },
        ExtensionRequest::Range { piece: Download { kind, task_id, number: 0 }, start: 0, length: 1 },
        ExtensionRequest::Range { piece: key.piece(1), start: 0, length: 1 },
    ] {
        let refused = both(&served, request).await.unwrap_err();
        assert!(matches!(refused, Failure::Refused { code: ErrorCode::NotFound, .. }), "{refused}");
    }
    for (start, length) in [(10, 1), (0, 0), (0, MAX_RANGE_LEN + 1)] {
        // Code 1, which a client takes for a server without the extension.
        assert_eq!(
            both(&served, ExtensionRequest::Range { piece: key.piece(0), start, length }).await,
            Ok(None)
        );
    }
}

#[tokio::test]
async fn a_server_without_extensions_is_like_a_deployed_one() {
    //= VTX-EXT-005 test
    let served = Served::new(ServerSettings { extensions: false, ..ServerSettings::default() }).await;
    assert_eq!(both(&served, ExtensionRequest::Capabilities).await, Ok(None));
    let (kind, task_id) = (PieceKind::Piece, TaskId::from_sha256([0; 32]));
    assert_eq!(both(&served, ExtensionRequest::Description { kind, task_id }).await, Ok(None));
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
