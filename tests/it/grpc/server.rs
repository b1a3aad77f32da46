//! This server, asked by a raw client.

use super::protobuf::{self, bytes, fields, number, request, unframe};
use super::raw::{call, connect, post, receive, send};
use super::{PATHS, Served, content};
use http::Request;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use vortex_p2p::server::{ServerLimits, ServerSettings};
use vortex_p2p::session::Deadlines;
use vortex_p2p::store::{NewTask, ParentId, PieceStore, Provenance, TaskKey};
use vortex_p2p::wire::{Algorithm, Digest, Division, PieceKind, PieceLength, TaskId};

/// The method that most tests call.
const PATH: &str = PATHS[0].1;
/// A deadline that tests wait for.
const SOON: Duration = Duration::from_millis(50);

#[tokio::test]
async fn pieces_of_every_kind_have_the_deployed_fields() {
    const PIECE: usize = 300_000;
    let served = Served::new(ServerSettings::default(), None).await;
    let requests = connect(served.address).await;
    for (kind, path) in PATHS {
        for length in [0, 1, PIECE, 2 * PIECE + 7] {
            let whole = content(length);
            let key = served.insert(kind, &whole, PIECE as u64).await;
            for (at, expected) in whole.chunks(PIECE).chain((length == 0).then_some(&[][..])).enumerate() {
                let got = call(&requests, path, &request(&key.id.to_string(), at as u64)).await;
                assert_eq!((got.http, got.status()), (200, "0"));
                assert_eq!(got.headers["content-type"], "application/grpc");
                let response = fields(unframe(&got.body));
                assert_eq!(response.len(), 1);
                let piece = fields(&bytes(&response, 1));
                assert_eq!(number(&piece, 1), at as u64);
                assert_eq!(number(&piece, 3), (at * PIECE) as u64);
                assert_eq!(number(&piece, 4), expected.len() as u64);
                let digest = Digest::of(Algorithm::Crc32, expected).to_string();
                assert_eq!(bytes(&piece, 5), digest.as_bytes());
                assert!(bytes(&piece, 6) == expected);
                assert!(protobuf::field(&piece, 6).is_some(), "content is there, even of an empty piece");
                assert_eq!(number(&piece, 7), 1, "from a remote peer");
                assert!(protobuf::field(&piece, 8).is_some());
                assert!(number(&fields(&bytes(&piece, 9)), 1) > 1_700_000_000, "created in this century");
            }
        }
    }
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let served = Served::new(ServerSettings::default(), None).await;
    let requests = connect(served.address).await;
    let key = served.insert(PieceKind::Piece, &content(100), 64).await;
    let id = key.id.to_string();
    for (path, id, number) in
        [(PATH, &*id, 2), (PATH, &*id, u64::from(u32::MAX)), (PATHS[1].1, &id, 0), (PATH, &"0".repeat(64), 0)]
    {
        let got = call(&requests, path, &request(id, number)).await;
        assert_eq!((got.http, got.status()), (200, "5"), "{path} {number}");
        assert!(got.body.is_empty());
        assert!(!got.headers["grpc-message"].is_empty());
    }
}

#[tokio::test]
async fn what_is_no_request_is_an_invalid_argument() {
    let served = Served::new(ServerSettings::default(), None).await;
    let requests = connect(served.address).await;
    let id = "a".repeat(64);
    let cases = [
        request(&id[1..], 0),
        request(&id.to_uppercase(), 0),
        request("../../../../etc/passwd", 0),
        // No protobuf; text that is not UTF-8; compressed; cut off; nothing; more than one; more than is taken.
        protobuf::frame(&[0xff; 8]),
        protobuf::frame(&protobuf::Builder::default().bytes(2, [0xff; 64]).build()),
        [&[1][..], &request(&id, 0)[1..]].concat(),
        request(&id, 0)[..40].to_vec(),
        Vec::new(),
        [0, 0xff, 0xff, 0xff, 0xff].to_vec(),
        protobuf::frame(&protobuf::Builder::default().bytes(1, [b'h'; 5000]).bytes(2, &id).build()),
    ];
    for case in cases {
        let got = call(&requests, PATH, &case).await;
        assert_eq!((got.http, got.status()), (200, "3"), "{case:02x?}");
    }
    // The connection is as good as new.
    let key = served.insert(PieceKind::Piece, &content(9), 64).await;
    let whole = request(&key.id.to_string(), 0);
    let got = receive(send(&requests, post(PATH), &whole, 1).await.unwrap()).await.unwrap();
    assert_eq!(got.status(), "0", "a request in frames of one byte");
}

#[tokio::test]
async fn other_methods_and_other_protocols_are_told_so() {
    let served = Served::new(ServerSettings::default(), None).await;
    let requests = connect(served.address).await;
    let got = call(&requests, "/dfdaemon.v2.DfdaemonUpload/DownloadTask", &request("", 0)).await;
    assert_eq!((got.http, got.status()), (200, "12"));

    let get = Request::get(format!("http://peer{PATH}")).header("content-type", "application/grpc");
    let got = receive(send(&requests, get.body(()).unwrap(), &[], 1).await.unwrap()).await.unwrap();
    assert_eq!(got.http, 405);
    let plain = Request::post(format!("http://peer{PATH}")).header("content-type", "text/plain");
    let got = receive(send(&requests, plain.body(()).unwrap(), &[], 1).await.unwrap()).await.unwrap();
    assert_eq!(got.http, 415);
}

#[tokio::test]
async fn a_store_that_fails_is_an_internal_error() {
    let served = Served::new(ServerSettings::default(), None).await;
    let requests = connect(served.address).await;
    let key = served.insert(PieceKind::Piece, &content(9), 64).await;
    served.store.mark_damaged(key.piece(0)).await.unwrap();
    let got = call(&requests, PATH, &request(&key.id.to_string(), 0)).await;
    assert_eq!(got.status(), "13");
}

#[tokio::test]
async fn a_piece_that_turns_out_damaged_ends_in_an_error_and_is_not_served_again() {
    let served = Served::new(ServerSettings::default(), None).await;
    let requests = connect(served.address).await;
    let key = TaskKey { kind: PieceKind::Piece, id: TaskId::from_sha256([1; 32]) };
    let stored = content(1 << 20);
    let division = Division::new(1 << 20, PieceLength::try_from(1 << 20).unwrap()).unwrap();
    served.store.create(NewTask { key, division, digest: None }).await.unwrap();
    let mut writer = served.store.writer(key.piece(0)).await.unwrap();
    writer.write(stored.clone()).await.unwrap();
    let provenance = Provenance {
        digest: Digest::of(Algorithm::Crc32, b"what was received"),
        parent_id: ParentId::new("parent"),
        cost: 1,
        created_at: 2,
    };
    writer.commit(provenance).await.unwrap();

    let body = request(&key.id.to_string(), 0);
    let got = call(&requests, PATH, &body).await;
    assert_eq!((got.http, got.status()), (200, "13"));
    let announced = u32::from_be_bytes(got.body[1..5].try_into().unwrap()) as usize;
    assert!(got.body.len() < 5 + announced, "the message must not be complete");
    let got = call(&requests, PATH, &body).await;
    assert!(got.body.is_empty() && got.status() == "13");
}

/// Longer than what a raw client grants without reading: an answer stays under way.
const LONG: usize = 4 << 20;

#[tokio::test]
async fn answers_are_limited_and_the_next_one_is_told() {
    let limits = ServerLimits { answers: 1, ..ServerLimits::default() };
    let served = Served::new(ServerSettings { limits, ..ServerSettings::default() }, None).await;
    let key = served.insert(PieceKind::Piece, &content(LONG), LONG as u64).await;
    let body = request(&key.id.to_string(), 0);
    let stalled = connect(served.address).await;
    let held = send(&stalled, post(PATH), &body, 1 << 14).await.unwrap();

    let requests = connect(served.address).await;
    let got = call(&requests, PATH, &body).await;
    assert_eq!(got.status(), "8");

    // The client gives its call up, and the place is free again.
    drop(held);
    while call(&requests, PATH, &body).await.status() != "0" {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn connections_are_limited() {
    let limits = ServerLimits { connections: 1, ..ServerLimits::default() };
    let served = Served::new(ServerSettings { limits, ..ServerSettings::default() }, None).await;
    let requests = connect(served.address).await;
    assert_eq!(call(&requests, PATH, &request(&"0".repeat(64), 0)).await.status(), "5");
    let mut second = TcpStream::connect(served.address).await.unwrap();
    let end = second.read(&mut [0]).await;
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    // The honest client goes on.
    assert_eq!(call(&requests, PATH, &request(&"0".repeat(64), 0)).await.status(), "5");
}

fn hurried(deadlines: impl FnOnce(&mut Deadlines)) -> ServerSettings {
    let mut settings = ServerSettings::default();
    deadlines(&mut settings.deadlines);
    settings
}

#[tokio::test]
async fn a_reader_that_takes_nothing_is_reset() {
    let served = Served::new(hurried(|deadlines| deadlines.progress = SOON), None).await;
    let key = served.insert(PieceKind::Piece, &content(LONG), LONG as u64).await;
    let requests = connect(served.address).await;
    let response = send(&requests, post(PATH), &request(&key.id.to_string(), 0), 1 << 14).await.unwrap();
    let mut stream = response.into_body();
    let error = loop {
        match stream.data().await {
            Some(Ok(_)) => {}
            Some(Err(error)) => break error,
            None => panic!("the answer can't be complete"),
        }
    };
    assert_eq!(error.reason(), Some(h2::Reason::CANCEL));
}

#[tokio::test]
async fn a_request_that_does_not_come_is_not_waited_for() {
    let served = Served::new(hurried(|deadlines| deadlines.request = SOON), None).await;
    let mut requests = connect(served.address).await.ready().await.unwrap();
    let (response, mut stream) = requests.send_request(post(PATH), false).unwrap();
    stream.send_data(request(&"0".repeat(64), 0)[..20].to_vec().into(), false).unwrap();
    assert_eq!(receive(response.await.unwrap()).await.unwrap().status(), "4");

    // Neither is a handshake.
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n").await.unwrap();
    stream.read_to_end(&mut Vec::new()).await.unwrap();
}

#[tokio::test]
async fn an_idle_connection_is_closed_in_order() {
    let served = Served::new(hurried(|deadlines| deadlines.idle = SOON), None).await;
    let stream = TcpStream::connect(served.address).await.unwrap();
    let (requests, connection) = h2::client::handshake(stream).await.unwrap();
    connection.await.unwrap();
    let end = requests.ready().await.expect_err("the connection has ended");
    assert!(end.is_go_away(), "{end:?}");
}

#[tokio::test]
async fn a_shutdown_lets_answers_end_and_takes_no_calls() {
    let served = Served::new(ServerSettings::default(), None).await;
    let whole = content(LONG);
    let key = served.insert(PieceKind::Piece, &whole, LONG as u64).await;
    let body = request(&key.id.to_string(), 0);
    let requests = connect(served.address).await;
    let response = send(&requests, post(PATH), &body, 1 << 14).await.unwrap();

    let server = served.server.clone();
    let shutdown = tokio::spawn(async move { server.shutdown().await });
    // The listener is gone at some point; until then connections are taken, and none is served.
    while let Ok(mut late) = TcpStream::connect(served.address).await {
        let _ = late.read(&mut [0]).await;
    }
    assert!(!shutdown.is_finished());
    let got = receive(response).await.unwrap();
    assert_eq!(got.status(), "0");
    assert!(bytes(&fields(&bytes(&fields(unframe(&got.body)), 1)), 6) == whole);
    shutdown.await.unwrap();
    assert!(send(&requests, post(PATH), &body, 1 << 14).await.is_err());
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_handshakes() {
    let never = Duration::from_secs(1 << 20);
    let patient = hurried(|deadlines| (deadlines.request, deadlines.shutdown) = (never, never));
    let served = Served::new(patient, None).await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    // The server speaks first, and then waits for the client.
    stream.read_exact(&mut [0; 9]).await.unwrap();
    served.server.shutdown().await;
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_the_slow() {
    let served = Served::new(hurried(|deadlines| deadlines.shutdown = SOON), None).await;
    let key = served.insert(PieceKind::Piece, &content(LONG), LONG as u64).await;
    let requests = connect(served.address).await;
    let body = request(&key.id.to_string(), 0);
    let response = send(&requests, post(PATH), &body, 1 << 14).await.unwrap();
    served.server.shutdown().await;
    assert!(receive(response).await.is_err());
}
