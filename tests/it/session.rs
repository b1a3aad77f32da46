//! The state machines of a request: what they accept and what they refuse, however the bytes are split.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use vortex_p2p::session::{
    Answer, AnswerStep, Ask, ClientEvent, ClientRequest, Corrupt, Failure, Incoming, Piece, Received,
    Refusal, Rejection, RequestReader,
};
use vortex_p2p::wire::{
    Algorithm, Bounded, DecodeError, Digest, DigestError, Download, ErrorCode, ErrorMessage, Message,
    Metadata, Packet, PieceKind, PieceLength, Tag, TaskId, TrafficType,
};

const CONTENT: &[u8] = b"the content of a piece";

fn download(kind: PieceKind) -> Download {
    Download { kind, task_id: TaskId::from_sha256([0xab; 32]), number: 7 }
}

fn ask() -> Ask {
    Ask::new(download(PieceKind::Piece))
}

fn length(length: usize) -> PieceLength {
    PieceLength::try_from(length as u64).unwrap()
}

fn metadata<'a>(digest: &'a str, content: &[u8]) -> Metadata<'a> {
    Metadata {
        number: 7,
        offset: 0,
        length: length(content.len()),
        digest: Bounded::new(digest).unwrap(),
        parent_id: Bounded::new("peer").unwrap(),
        traffic_type: TrafficType(9),
        cost: 3,
        created_at: -1,
    }
}

fn packet(message: Message<'_>) -> BytesMut {
    let mut bytes = BytesMut::new();
    Packet { id: 1, message }.encode(&mut bytes);
    bytes
}

/// A Content packet with these metadata, then the content.
fn answer(metadata: Metadata<'_>, content: &[u8]) -> Bytes {
    let mut bytes = packet(Message::Content(PieceKind::Piece, metadata));
    bytes.extend_from_slice(content);
    bytes.freeze()
}

fn good() -> Bytes {
    answer(metadata(Digest::of(Algorithm::Crc32, CONTENT).to_text().as_str(), CONTENT), CONTENT)
}

/// Feeds `bytes` in parts of `sizes`, then the end of the stream.
fn receive(ask: Ask, bytes: &Bytes, sizes: &[usize]) -> Result<(Piece, Vec<u8>, Received), Failure> {
    let mut request = ClientRequest::new(ask);
    let (mut piece, mut content) = (None, Vec::new());
    let mut rest = bytes.clone();
    let mut sizes = sizes.iter().copied();
    while !rest.is_empty() {
        let mut part = rest.split_to(sizes.next().unwrap_or(usize::MAX).clamp(1, rest.len()));
        while !part.is_empty() {
            match request.receive(&mut part)? {
                Some(ClientEvent::Answered(answered)) => assert!(piece.replace(answered).is_none()),
                Some(ClientEvent::Content(bytes)) => content.extend_from_slice(&bytes),
                None => assert!(part.is_empty(), "bytes are neither taken nor refused"),
            }
        }
    }
    let received = request.finish()?;
    Ok((piece.unwrap(), content, received))
}

fn failure(ask: Ask, bytes: &Bytes) -> Failure {
    let whole = receive(ask, bytes, &[]).unwrap_err();
    assert_eq!(receive(ask, bytes, &vec![1; bytes.len()]).unwrap_err(), whole, "byte by byte");
    whole
}

fn rejection(ask: Ask, bytes: &Bytes) -> Rejection {
    match failure(ask, bytes) {
        Failure::Rejected(rejection) => rejection,
        other => panic!("{other}"),
    }
}

proptest! {
    //= VTX-FRM-009 test
    //= VTX-CNT-018 test
    //= VTX-DIG-014 test
    #[test]
    fn any_split_gives_the_same_piece(
        content in proptest::collection::vec(any::<u8>(), 0..600),
        sizes in proptest::collection::vec(1usize..100, 0..50),
        algorithm in proptest::sample::select(&Algorithm::ALL[..]),
    ) {
        let digest = Digest::of(algorithm, &content);
        let bytes = answer(metadata(digest.to_text().as_str(), &content), &content);
        let (piece, received, outcome) = receive(ask(), &bytes, &sizes).unwrap();
        prop_assert_eq!(received, content);
        prop_assert_eq!(outcome.verified, Some(digest));
        prop_assert_eq!(piece.parent_id, "peer");
    }

    //= VTX-DIG-015 test
    #[test]
    fn no_altered_byte_of_the_content_passes(at in 0..CONTENT.len(), flip in 1u8..) {
        let mut bytes = BytesMut::from(good().as_ref());
        let start = bytes.len() - CONTENT.len();
        bytes[start + at] ^= flip;
        let failure = failure(ask(), &bytes.freeze());
        prop_assert!(failure.is_mismatch(), "{failure}");
    }

    //= VTX-CNT-019 test
    #[test]
    fn no_answer_is_complete_before_its_last_byte(end in 1..good().len()) {
        let bytes = good().slice(..end);
        match rejection(ask(), &bytes) {
            Rejection::Malformed(DecodeError::Truncated { .. }) => prop_assert!(end < bytes.len() + CONTENT.len()),
            Rejection::Incomplete { received, expected } => {
                prop_assert_eq!(expected, length(CONTENT.len()));
                prop_assert_eq!(good().len() - CONTENT.len() + received as usize, end);
            }
            other => prop_assert!(false, "{other}"),
        }
    }

    #[test]
    fn a_client_survives_anything(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = receive(Ask { lenient: true, ..ask() }, &Bytes::from(bytes), &[3, 1, 7]);
    }

    #[test]
    fn a_server_survives_anything(bytes in proptest::collection::vec(any::<u8>(), 0..300), size in 1usize..50) {
        let mut reader = RequestReader::new();
        for mut part in bytes.chunks(size) {
            while !part.is_empty() {
                let before = part.len();
                match reader.receive(&mut part) {
                    Some(Incoming::Refuse(Refusal { ends: true, .. })) => return Ok(()),
                    Some(_) => prop_assert!(part.len() < before || reader.is_passing_over()),
                    None => prop_assert!(part.is_empty()),
                }
            }
        }
        let _ = reader.finish();
    }
}

#[test]
fn an_answer_that_ends_at_once_is_no_answer() {
    //= VTX-QUC-030 test
    //= VTX-TCP-016 test
    assert_eq!(failure(ask(), &Bytes::new()), Failure::NotAnswered);
}

#[test]
fn an_error_packet_is_told_apart_from_everything_else() {
    //= VTX-ERR-002 test
    //= VTX-ERR-005 test
    for (code, expected) in [
        (0, ErrorCode::Unknown(0)),
        (1, ErrorCode::InvalidArgument),
        (2, ErrorCode::NotFound),
        (3, ErrorCode::Internal),
        (4, ErrorCode::Unknown(4)),
        (255, ErrorCode::Unknown(255)),
    ] {
        for message in ["", "not today"] {
            let error = ErrorMessage { code: code.into(), message: Bounded::new(message).unwrap() };
            let refused = Failure::Refused { code: expected, message: message.into() };
            assert_eq!(failure(ask(), &packet(Message::Error(error)).freeze()), refused);
        }
    }
}

#[test]
fn close_in_place_of_an_answer_is_reported_as_such() {
    //= VTX-CLS-007 test
    assert_eq!(failure(ask(), &packet(Message::Close).freeze()), Failure::GoingAway);
}

#[test]
fn what_is_no_answer_is_rejected() {
    //= VTX-CNT-021 test
    let request = download(PieceKind::Piece);
    let bytes = packet(Message::Download(request)).freeze();
    assert_eq!(rejection(ask(), &bytes), Rejection::NoAnswer(Tag::Download(PieceKind::Piece)));
    let reserved = Bytes::from_static(&[1, 0x80, 0, 0, 0, 1, 0xff]);
    assert_eq!(rejection(ask(), &reserved), Rejection::NoAnswer(Tag::from(0x80)));
}

#[test]
fn content_of_every_other_kind_is_rejected() {
    //= VTX-CNT-020 test
    for expected in PieceKind::ALL {
        let ask = Ask::new(download(expected));
        for got in PieceKind::ALL {
            let digest = Digest::of(Algorithm::Crc32, b"").to_text();
            let bytes = packet(Message::Content(got, metadata(digest.as_str(), b""))).freeze();
            if got == expected {
                assert!(receive(ask, &bytes, &[]).is_ok());
            } else {
                assert_eq!(rejection(ask, &bytes), Rejection::OtherKind { expected, got });
            }
        }
    }
}

#[test]
fn another_number_or_length_is_rejected_before_the_content() {
    //= VTX-CNT-007 test
    //= VTX-CNT-011 test
    let digest = Digest::of(Algorithm::Crc32, CONTENT).to_text();
    let other = Metadata { number: 8, ..metadata(digest.as_str(), CONTENT) };
    let head = packet(Message::Content(PieceKind::Piece, other)).freeze();
    assert_eq!(rejection(ask(), &head), Rejection::OtherNumber { expected: 7, got: 8 });

    let ask = Ask { length: Some(length(CONTENT.len() + 1)), ..ask() };
    let head = packet(Message::Content(PieceKind::Piece, metadata(digest.as_str(), CONTENT))).freeze();
    let (expected, got) = (length(CONTENT.len() + 1), length(CONTENT.len()));
    assert_eq!(rejection(ask, &head), Rejection::OtherLength { expected, got });
}

#[test]
fn offset_traffic_type_cost_and_date_decide_nothing() {
    //= VTX-CNT-009 test
    //= VTX-CNT-016 test
    let digest = Digest::of(Algorithm::Crc32, CONTENT).to_text();
    for (offset, cost, created_at) in [(0, 0, 0), (u64::MAX, u64::MAX, i64::MIN), (1, 1, i64::MAX)] {
        for traffic_type in [0, 3, 255].map(TrafficType) {
            let odd =
                Metadata { offset, cost, created_at, traffic_type, ..metadata(digest.as_str(), CONTENT) };
            let (piece, content, _) = receive(ask(), &answer(odd, CONTENT), &[]).unwrap();
            assert_eq!(content, CONTENT);
            assert_eq!((piece.claimed_offset, piece.created_at), (offset, created_at));
        }
    }
}

#[test]
fn a_digest_that_cannot_be_checked_is_for_the_lenient_only() {
    //= VTX-DIG-010 test
    //= VTX-DIG-011 test
    //= VTX-DIG-012 test
    //= VTX-DIG-013 test
    let lenient = Ask { lenient: true, ..ask() };
    for (text, error) in [
        ("", DigestError::Empty),
        ("md5:00", DigestError::UnknownAlgorithm),
        ("CRC32:1", DigestError::UnknownAlgorithm),
    ] {
        let bytes = answer(metadata(text, CONTENT), CONTENT);
        assert_eq!(rejection(ask(), &bytes), Rejection::Digest(error));
        let (piece, _, received) = receive(lenient, &bytes, &[]).unwrap();
        assert_eq!((piece.claim, received.verified), (None, None));
    }
    for text in ["crc32", "crc32:", "crc32:-1", "crc32:4294967296", "sha256:00", "sha512:zz", ":"] {
        let bytes = answer(metadata(text, CONTENT), CONTENT);
        let expected = if text == ":" { DigestError::UnknownAlgorithm } else { DigestError::Malformed };
        assert_eq!(rejection(ask(), &bytes), Rejection::Digest(expected), "{text}");
    }
}

#[test]
fn a_digest_known_beforehand_counts_whatever_the_server_says() {
    //= VTX-DIG-016 test
    for algorithm in Algorithm::ALL {
        let right = Ask { digest: Some(Digest::of(algorithm, CONTENT)), ..ask() };
        let (.., received) = receive(right, &good(), &[5]).unwrap();
        assert_eq!(received.verified, right.digest);
        let wrong = Ask { digest: Some(Digest::of(algorithm, b"other")), ..ask() };
        assert_eq!(rejection(wrong, &good()), Rejection::OtherDigest);
        // A lenient client without a claim to check still checks what it knows.
        let bytes = answer(metadata("", CONTENT), CONTENT);
        assert_eq!(rejection(Ask { lenient: true, ..wrong }, &bytes), Rejection::OtherDigest);
        assert!(receive(Ask { lenient: true, ..right }, &bytes, &[]).unwrap().2.verified.is_some());
    }
}

#[test]
fn bytes_after_the_content_are_refused_where_the_stream_should_end() {
    //= VTX-QUC-029 test
    let mut bytes = BytesMut::from(good().as_ref());
    bytes.extend_from_slice(b"x");
    assert_eq!(rejection(ask(), &bytes.freeze()), Rejection::Trailing);
}

#[test]
fn on_tcp_the_next_answer_stays_in_the_input() {
    //= VTX-CNT-018 test
    let mut input = BytesMut::from(good().as_ref());
    input.extend_from_slice(b"next");
    let mut input = input.freeze();
    let mut request = ClientRequest::new(ask());
    while request.remaining() != Some(0) {
        assert!(request.receive(&mut input).unwrap().is_some());
    }
    assert_eq!(input, b"next"[..]);
    assert!(request.finish().unwrap().verified.is_some());
}

fn refusals(bytes: &[u8]) -> Vec<(u8, ErrorCode, bool)> {
    let mut reader = RequestReader::new();
    let (mut input, mut refusals) = (bytes, Vec::new());
    while let Some(incoming) = reader.receive(&mut input) {
        let Incoming::Refuse(refusal) = incoming else { panic!("{incoming:?}") };
        refusals.push((refusal.id, refusal.code, refusal.ends));
        if refusal.ends {
            break;
        }
    }
    refusals
}

#[test]
fn what_cannot_be_answered_is_refused_with_code_1() {
    //= VTX-ERR-007 test
    //= VTX-ERR-008 test
    //= VTX-FRM-013 test
    let code = ErrorCode::InvalidArgument;
    assert_eq!(refusals(&[5, 0, 0, 0, 0, 67]), [(5, code, false)], "before the value is there");
    assert_eq!(refusals(&[5, 0x77, 0xff, 0xff, 0xff, 0xff]), [(5, code, true)], "4 GiB");
    assert_eq!(refusals(&[5, 0xff, 0, 0, 0, 1, 0]), [(5, code, false)], "an Error packet");
    let mut upper = download(PieceKind::Piece).encode(5);
    upper[6] = b'A';
    assert_eq!(refusals(&upper), [(5, code, false)], "a task id in upper case");
}

#[test]
fn after_a_refused_packet_the_next_one_is_read() {
    //= VTX-TCP-006 test
    let mut bytes = vec![9, 0, 0, 0, 0, 3, 1, 2, 3];
    bytes.extend_from_slice(&download(PieceKind::Cache).encode(10));
    let mut reader = RequestReader::new();
    let mut input = bytes.as_slice();
    assert!(matches!(reader.receive(&mut input), Some(Incoming::Refuse(refusal)) if refusal.id == 9));
    let request = Incoming::Request { id: 10, download: download(PieceKind::Cache) };
    assert_eq!(reader.receive(&mut input), Some(request));
    assert!(reader.is_idle() && reader.finish().is_none());
}

#[test]
fn a_request_that_is_cut_off_is_refused_once() {
    //= VTX-TCP-009 test
    let whole = download(PieceKind::Piece).encode(3);
    for end in 1..whole.len() {
        let mut reader = RequestReader::new();
        assert_eq!(reader.receive(&mut &whole[..end]), None);
        assert!(!reader.is_idle());
        let refusal = reader.finish().unwrap();
        assert_eq!(refusal.code, ErrorCode::InvalidArgument);
        assert_eq!(refusal.id, if end < 6 { 0 } else { 3 });
    }
    // The Error packet for a refused packet is out already, whatever becomes of its value.
    let mut reader = RequestReader::new();
    assert!(matches!(reader.receive(&mut &[9, 0, 0, 0, 0, 3, 1][..]), Some(Incoming::Refuse(_))));
    assert!(reader.is_passing_over() && reader.finish().is_none());
}

#[test]
fn an_error_message_is_cut_between_characters() {
    //= VTX-ERR-003 test
    let refusal = Refusal::new(1, ErrorCode::Internal, "ä".repeat(600) + "x");
    let packet = refusal.encode();
    let Message::Error(error) = Packet::decode_exact(&packet).unwrap().message else { panic!() };
    assert_eq!(error.message.as_str(), "ä".repeat(512));
}

#[test]
fn peer_text_in_errors_is_escaped_and_short() {
    //= VTX-SEC-001 test
    let refused =
        Failure::Refused { code: ErrorCode::NotFound, message: format!("\x1b[2J\n{}", "x".repeat(9999)) };
    let text = refused.to_string();
    assert!(text.len() < 300 && !text.contains(char::is_control), "{text}");
}

#[test]
fn an_answer_hands_out_exactly_the_piece() {
    //= VTX-CNT-017 test
    //= VTX-TAG-004 test
    //= VTX-FRM-006 test
    let digest = Digest::of(Algorithm::Sha256, CONTENT);
    for kind in PieceKind::ALL {
        let mut answer = Answer::new(42, kind, &metadata(digest.to_text().as_str(), CONTENT), digest);
        let AnswerStep::Send(head) = answer.step() else { panic!() };
        let packet = Packet::decode_exact(&head).unwrap();
        assert_eq!((packet.id, packet.message.tag()), (42, Tag::Content(kind)));
        assert_eq!(answer.step(), AnswerStep::Content { offset: 0, length: CONTENT.len() as u32 });
        answer.content(&CONTENT[..5]).unwrap();
        assert_eq!(answer.step(), AnswerStep::Content { offset: 5, length: CONTENT.len() as u32 - 5 });
        answer.content(&CONTENT[5..]).unwrap();
        assert_eq!(answer.step(), AnswerStep::Done);
        assert_eq!(answer.content(b"x"), Err(Corrupt));
    }
}

#[test]
fn damage_is_found_before_the_last_bytes_are_out() {
    let digest = Digest::of(Algorithm::Crc32, CONTENT);
    let mut answer = Answer::new(1, PieceKind::Piece, &metadata(digest.to_text().as_str(), CONTENT), digest);
    let mut damaged = CONTENT.to_vec();
    damaged[3] ^= 1;
    assert_eq!(answer.content(&damaged), Err(Corrupt));
}

#[test]
fn content_that_went_past_counts_and_never_beyond_the_piece() {
    let digest = Digest::of(Algorithm::Crc32, CONTENT);
    let mut answer = Answer::new(1, PieceKind::Piece, &metadata(digest.to_text().as_str(), CONTENT), digest);
    assert!(matches!(answer.step(), AnswerStep::Send(_)));
    answer.passed(5).unwrap();
    assert_eq!(answer.step(), AnswerStep::Content { offset: 5, length: CONTENT.len() as u32 - 5 });
    assert_eq!(answer.passed(CONTENT.len() as u64 - 4), Err(Corrupt));
    assert_eq!(answer.passed(u64::MAX), Err(Corrupt));
    answer.passed(CONTENT.len() as u64 - 5).unwrap();
    assert_eq!(answer.step(), AnswerStep::Done);
}

/// A refusal ends the connection where its boundaries are lost: after a deadline, or after a length that can't be passed over.
#[test]
fn a_refusal_ends_what_can_not_go_on() {
    assert!(Refusal::late(1).ends);
    assert!(!Refusal::no_request(1, Tag::Close).ends);
    let refusal = |bytes: &[u8]| match RequestReader::new().receive(&mut &*bytes) {
        Some(Incoming::Refuse(refusal)) => refusal,
        other => panic!("{other:?}"),
    };
    assert!(refusal(&[9, 0, 0xff, 0xff, 0xff, 0xff]).ends);
    assert!(!refusal(&[9, 0, 0, 0, 0, 3, 1]).ends);
}

#[test]
fn a_reader_knows_where_it_is() {
    let whole = download(PieceKind::Piece).encode(3);
    let mut reader = RequestReader::new();
    assert!(reader.is_idle() && !reader.is_passing_over());
    reader.receive(&mut &whole[..10]);
    assert!(!reader.is_idle() && !reader.is_passing_over());
    assert_eq!(reader.packet_id(), 3);
    reader.receive(&mut &whole[10..]).unwrap();
    assert!(reader.is_idle() && !reader.is_passing_over());
}

#[test]
fn a_request_awaits_its_answer_until_the_packet_is_there() {
    let digest = Digest::of(Algorithm::Crc32, CONTENT);
    let mut packet = Vec::new();
    metadata(digest.to_text().as_str(), CONTENT).encode(0, PieceKind::Piece, &mut packet);
    let mut request = ClientRequest::new(ask());
    let mut most = Bytes::copy_from_slice(&packet[..packet.len() - 1]);
    assert!(matches!(request.receive(&mut most), Ok(None)));
    assert!(request.is_awaiting_answer());
    let mut last = Bytes::copy_from_slice(&packet[packet.len() - 1..]);
    assert!(matches!(request.receive(&mut last), Ok(Some(_))));
    assert!(!request.is_awaiting_answer());
}

#[test]
fn only_content_with_another_digest_is_a_mismatch() {
    for (rejection, mismatch) in [
        (Rejection::Mismatch, true),
        (Rejection::OtherDigest, true),
        (Rejection::Trailing, false),
        (Rejection::NoAnswer(Tag::Close), false),
    ] {
        assert_eq!(Failure::from(rejection).is_mismatch(), mismatch);
    }
    assert!(!Failure::NotAnswered.is_mismatch());
}

#[test]
fn a_peers_words_are_shown_up_to_two_hundred() {
    let shown = |message: &str| {
        Failure::Refused { code: ErrorCode::NotFound, message: message.to_owned() }.to_string()
    };
    assert_eq!(shown(""), "the peer refused: not found");
    assert_eq!(shown("no such task"), "the peer refused: not found: no such task");
    let most = "x".repeat(200);
    assert_eq!(shown(&most), format!("the peer refused: not found: {most}"));
    assert_eq!(shown(&(most.clone() + "y")), format!("the peer refused: not found: {most}…"));
}
