//! This client, answered by a raw server.

use super::protobuf::{Builder, frame};
use super::raw::{Reply, serve};
use super::{PATHS, content, runtime};
use futures_util::future::join_all;
use std::time::Duration;
use vortex_p2p::client::{Answer, Ask, Failure, GrpcClient, Rejection, RequestError, Waited};
use vortex_p2p::session::Deadlines;
use vortex_p2p::transport::{Network, TokioNetwork};
use vortex_p2p::wire::{
    Algorithm, DecodeError, Digest, DigestError, Download, ErrorCode, PieceKind, PieceLength, TaskId,
};

const NUMBER: u32 = 7;

fn ask(kind: PieceKind) -> Ask {
    Ask::new(Download { kind, task_id: TaskId::from_sha256([0xab; 32]), number: NUMBER })
}

fn expected_request() -> Vec<u8> {
    frame(&Builder::default().bytes(2, "ab".repeat(32)).number(3, NUMBER.into()).build())
}

async fn connect(kind: usize, reply: Reply, deadlines: Deadlines) -> GrpcClient {
    let address = serve(PATHS[kind].1, expected_request(), reply).await;
    let stream = TokioNetwork::default().connect(address).await.unwrap();
    GrpcClient::new(stream, address, runtime(), deadlines).await.unwrap()
}

async fn fetch(reply: Reply, ask: Ask) -> Result<(Answer, Vec<u8>), RequestError> {
    let client = connect(0, reply, Deadlines::default()).await;
    let mut answer = client.request(ask).await?;
    let content = answer.collect().await?;
    Ok((answer, content))
}

/// What `fetch` fails with.
async fn failure(reply: Reply, ask: Ask) -> Failure {
    match fetch(reply, ask).await {
        Err(RequestError::Failed(failure)) => failure,
        other => panic!("{other:?}"),
    }
}

async fn rejection(reply: Reply, ask: Ask) -> Rejection {
    match failure(reply, ask).await {
        Failure::Rejected(rejection) => rejection,
        other => panic!("{other:?}"),
    }
}

/// A piece up to its digest, as deployed servers order the fields.
fn head(number: u64, length: usize, digest: &str) -> Builder {
    Builder::default()
        .number(1, number)
        .bytes(2, "parent")
        .number(3, 64)
        .number(4, length as u64)
        .bytes(5, digest)
}

/// The whole message with what deployed servers put behind the content.
fn message(head: Builder, content: Option<&[u8]>) -> Vec<u8> {
    let piece = match content {
        Some(content) => head.bytes(6, content),
        None => head,
    };
    let piece = piece
        .number(7, 1)
        .bytes(8, Builder::default().number(1, 3).number(2, 500_000_000).build())
        .bytes(9, Builder::default().number(1, 1_700_000_000).build());
    frame(&Builder::default().bytes(1, piece.build()).bytes(2, "sha256:of-the-metadata").build())
}

fn good(content: &[u8]) -> Vec<u8> {
    message(head(NUMBER.into(), content.len(), &crc32(content)), Some(content))
}

fn crc32(content: &[u8]) -> String {
    Digest::of(Algorithm::Crc32, content).to_string()
}

fn ok(message: Vec<u8>) -> Reply {
    Reply::Message(message, 1 << 14, Some("0"))
}

#[tokio::test]
async fn pieces_of_every_kind_and_size_are_received_and_verified() {
    for (at, (kind, _)) in PATHS.into_iter().enumerate() {
        for (length, frame) in [(0, 1), (1, 1), (1000, 7), (3 << 20, 1 << 14), (3 << 20, 3 << 20)] {
            let content = content(length);
            let client =
                connect(at, Reply::Message(good(&content), frame, Some("0")), Deadlines::default()).await;
            let mut answer = client.request(ask(kind)).await.unwrap();
            assert_eq!(answer.collect().await.unwrap(), content);
            assert_eq!(answer.received().unwrap().verified, Some(Digest::of(Algorithm::Crc32, &content)));
            let piece = answer.piece();
            assert_eq!((piece.number, piece.length.get() as usize), (NUMBER, length));
            assert_eq!((piece.claimed_offset, &*piece.parent_id), (64, "parent"));
            assert_eq!((piece.traffic_type.0, piece.cost, piece.created_at), (1, 3, 1_700_000_000));
        }
    }
}

#[tokio::test]
async fn a_client_may_name_its_host() {
    let content = content(9);
    // What is too long for the field is cut between two characters.
    for (host, sent) in [("host-1", "host-1".to_owned()), (&"é".repeat(600), "é".repeat(512))] {
        let request = Builder::default().bytes(1, &sent).bytes(2, "ab".repeat(32)).number(3, NUMBER.into());
        let address = serve(PATHS[0].1, frame(&request.build()), ok(good(&content))).await;
        let stream = TokioNetwork::default().connect(address).await.unwrap();
        let client = GrpcClient::new(stream, address, runtime(), Deadlines::default()).await.unwrap();
        let mut answer = client.with_host_id(host).request(ask(PieceKind::Piece)).await.unwrap();
        assert_eq!(answer.collect().await.unwrap(), content);
    }
}

#[tokio::test]
async fn requests_share_a_connection() {
    let content = content(200_000);
    let client = connect(0, ok(good(&content)), Deadlines::default()).await;
    let fetches = (0..40).map(|_| async { client.request(ask(PieceKind::Piece)).await?.collect().await });
    for fetched in join_all(fetches).await {
        assert!(fetched.unwrap() == content);
    }
    assert!(!client.is_closed());
}

#[tokio::test]
async fn fields_of_later_versions_and_of_another_order_are_no_trouble() {
    let content = content(100);
    let piece = Builder::default().bytes(99, "later").bytes(6, &content).number(98, 5);
    let piece = piece.bytes(5, crc32(&content)).number(4, 100).number(1, NUMBER.into());
    let response = Builder::default().number(77, 1).bytes(1, piece.build()).build();
    let (_, got) = fetch(ok(frame(&response)), ask(PieceKind::Piece)).await.unwrap();
    assert_eq!(got, content);
}

#[tokio::test]
async fn a_lying_server_is_rejected() {
    let bytes = content(100);
    let right = crc32(&bytes);
    let number = u64::from(NUMBER);
    let plain = ask(PieceKind::Piece);

    let wrong = message(head(number, 100, &crc32(b"other")), Some(&bytes));
    assert_eq!(rejection(ok(wrong), plain).await, Rejection::Mismatch);
    let known = Ask { digest: Some(Digest::of(Algorithm::Sha256, b"other")), ..plain };
    assert_eq!(rejection(ok(good(&bytes)), known).await, Rejection::OtherDigest);
    let other = message(head(8, 100, &right), Some(&bytes));
    assert_eq!(rejection(ok(other), plain).await, Rejection::OtherNumber { expected: NUMBER, got: 8 });
    let length = |length: u64| PieceLength::try_from(length).unwrap();
    let known = Ask { length: Some(length(99)), ..plain };
    assert_eq!(
        rejection(ok(good(&bytes)), known).await,
        Rejection::OtherLength { expected: length(99), got: length(100) }
    );
    let incomplete = |received| Rejection::Incomplete { received, expected: length(100) };
    assert_eq!(rejection(ok(message(head(number, 100, &right), None)), plain).await, incomplete(0));
    assert_eq!(
        rejection(ok(message(head(number, 100, &right), Some(&bytes[..99]))), plain).await,
        incomplete(99)
    );
    let more = message(head(number, 99, &crc32(&bytes[..99])), Some(&bytes));
    assert_eq!(rejection(ok(more), plain).await, Rejection::Trailing);
    let none = message(head(number, 100, ""), Some(&bytes));
    assert_eq!(rejection(ok(none.clone()), plain).await, Rejection::Digest(DigestError::Empty));
    let lenient = Ask { lenient: true, ..plain };
    assert_eq!(fetch(ok(none), lenient).await.unwrap().0.received().unwrap().verified, None);
    let huge = message(head(number, 2 << 30, &right), Some(&bytes));
    assert_eq!(
        rejection(ok(huge), plain).await,
        Rejection::Malformed(DecodeError::BadPieceLength { length: 2 << 30 })
    );
    let long = message(head(number, 100, &"d".repeat(257)), Some(&bytes));
    assert!(matches!(
        rejection(ok(long), plain).await,
        Rejection::Malformed(DecodeError::FieldTooLong { field: "the digest", length: 257, limit: 256 })
    ));
}

#[tokio::test]
async fn what_is_no_message_is_rejected() {
    let bytes = content(100);
    let plain = ask(PieceKind::Piece);
    let known = Ask { length: Some(PieceLength::try_from(100).unwrap()), ..plain };
    let cases = [
        // No piece; no protobuf; nothing; cut off; compressed; two; no status; HTTP only.
        (ok(frame(&[])), plain),
        (ok(frame(&[0xff; 9])), plain),
        (ok(Vec::new()), plain),
        (ok(good(&bytes)[..50].to_vec()), plain),
        (ok([&[1][..], &good(&bytes)[1..]].concat()), plain),
        (ok([good(&bytes), good(&bytes)].concat()), plain),
        (Reply::Message(good(&bytes), 50, None), plain),
        (Reply::Http(503), plain),
        (Reply::Status("0", ""), plain),
        // More than the piece can have, and more than any: refused before the bytes come.
        (Reply::HangAfter([&[0][..], &(1_u32 << 20).to_be_bytes()].concat()), known),
        (Reply::HangAfter(vec![0, 0xff, 0xff, 0xff, 0xff]), plain),
    ];
    for (at, (reply, ask)) in cases.into_iter().enumerate() {
        let rejection = rejection(reply, ask).await;
        assert!(matches!(rejection, Rejection::BadMessage(_)), "case {at}: {rejection:?}");
    }
}

#[tokio::test]
async fn statuses_become_error_codes() {
    let cases = [
        ("5", ErrorCode::NotFound),
        ("3", ErrorCode::InvalidArgument),
        ("12", ErrorCode::InvalidArgument),
        ("13", ErrorCode::Internal),
        ("8", ErrorCode::Internal),
        ("14", ErrorCode::Internal),
        ("2", ErrorCode::Unknown(0)),
        ("16", ErrorCode::Unknown(0)),
        ("99", ErrorCode::Unknown(0)),
        ("x", ErrorCode::Unknown(0)),
    ];
    for (status, code) in cases {
        let message = "no%20such%0Apiece".to_owned();
        let failure = failure(Reply::Status(status, "no%20such%0Apiece"), ask(PieceKind::Piece)).await;
        let Failure::Refused { code: got, message: text } = &failure else { panic!("{failure:?}") };
        assert_eq!((*got, &**text), (code, "no such\npiece"), "{status} {message}");
        assert!(!failure.to_string().contains('\n'), "a peer's text is escaped");
    }
    // Also when the server fails within the message.
    let partial = good(&content(100))[..50].to_vec();
    let failure = failure(Reply::Message(partial, 50, Some("13")), ask(PieceKind::Piece)).await;
    assert!(matches!(failure, Failure::Refused { code: ErrorCode::Internal, .. }));
}

#[tokio::test]
async fn a_server_that_hangs_is_given_up() {
    let soon = Duration::from_millis(50);
    let hurried = Deadlines { first_byte: soon, piece: 2 * soon, ..Deadlines::default() };
    let partial = good(&content(100))[..50].to_vec();
    for (reply, expected) in [(Reply::Hang, Waited::FirstByte), (Reply::HangAfter(partial), Waited::Piece)] {
        let client = connect(0, reply, hurried).await;
        match client.request(ask(PieceKind::Piece)).await {
            Err(RequestError::TimedOut(waited)) => assert_eq!(waited, expected),
            other => panic!("{other:?}"),
        }
        assert!(!client.is_closed(), "the connection stays");
    }
}

#[tokio::test]
async fn what_is_broken_off_is_told_apart() {
    let partial = good(&content(100))[..50].to_vec();
    let plain = ask(PieceKind::Piece);
    let reset = Reply::ResetAfter(partial.clone(), h2::Reason::INTERNAL_ERROR);
    assert_eq!(rejection(reset, plain).await, Rejection::Reset);
    assert_eq!(failure(Reply::Refuse, plain).await, Failure::GoingAway);

    let client = connect(0, Reply::CutAfter(partial), Deadlines::default()).await;
    let lost = client.request(plain).await;
    assert!(matches!(lost, Err(RequestError::Lost(_))), "{lost:?}");
    // Whoever keeps connections is told that this one is of no use.
    while !client.is_closed() {
        tokio::task::yield_now().await;
    }
    assert!(matches!(client.request(plain).await, Err(RequestError::Lost(_))));
}
