//! Downloaders over loopback: what is shared, kept, sent again and given up.

use super::world::{
    LOOPBACK, Served, answer, content, dialer, downloaders, endpoint, listener, runtime, server_tls, task,
};
use futures_util::future::join_all;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use vortex_p2p::client::{Ask, Failure, RequestError};
use vortex_p2p::downloader::{
    ConnectError, DownloadError, Downloader, DownloaderFactory, PieceRange, PoolSettings, Protocol,
    QuicDownloader, StorageClient, StorageClientError, TcpDownloader,
};
use vortex_p2p::server::ServerSettings;
use vortex_p2p::session::Deadlines;
use vortex_p2p::transport::quic::AppCode;
use vortex_p2p::transport::tls::{Reason, Trust};
use vortex_p2p::wire::extension::{Capabilities, Extension, ExtensionRequest};
use vortex_p2p::wire::{Algorithm, Digest, Download, Header, PieceKind, Tag, TaskId, limits};

const PIECE: u64 = 1 << 16;

#[tokio::test]
async fn every_kind_arrives_by_every_downloader_of_the_factory() {
    let served = Served::new().await;
    let downloaders = downloaders().await;
    let whole = content(3 * PIECE as usize + 7);
    for kind in PieceKind::ALL {
        let task = task(kind, &whole, PIECE);
        let key = served.insert(task, &whole).await;
        for peer in served.peers.clone() {
            let downloader = downloaders.downloader(peer.protocol).unwrap();
            assert_eq!(downloader.protocol(), peer.protocol);
            let mut received = Vec::new();
            for number in 0..4 {
                let mut answer = downloader.request(peer.address, Ask::new(key.piece(number))).await.unwrap();
                received.extend(answer.collect().await.unwrap());
            }
            assert_eq!(received, whole);
        }
    }
    if cfg!(not(feature = "grpc")) {
        let missing = downloaders.downloader(Protocol::Grpc).unwrap_err();
        assert_eq!(
            missing.to_string(),
            "grpc is not available here: use another protocol, or a build with it"
        );
    }
}

#[tokio::test]
async fn a_piece_comes_in_the_shape_of_the_proposal() {
    let served = Served::new().await;
    let whole = content(PIECE as usize + 100);
    let task = task(PieceKind::Piece, &whole, PIECE);
    let key = served.insert(task, &whole).await;
    let downloaders = downloaders().await;
    for peer in served.peers.clone() {
        let downloader = downloaders.downloader(peer.protocol).unwrap();
        let piece = downloader.download_piece(peer.address, 1, "host", key.id).await.unwrap();
        let tail = &whole[PIECE as usize..];
        assert_eq!(piece.content.into_inner(), tail);
        assert_eq!((piece.offset, piece.digest), (PIECE, Digest::of(Algorithm::Crc32, tail)));
    }
}

#[tokio::test]
async fn a_range_comes_alone_or_is_cut_out_of_the_verified_piece() {
    for extensions in [true, false] {
        a_range_comes(extensions).await;
    }
}

//= VTX-EXT-023 test
async fn a_range_comes(extensions: bool) {
    let served = Served::with(ServerSettings { extensions, ..ServerSettings::default() }).await;
    let whole = content(PIECE as usize);
    let key = served.insert(task(PieceKind::Cache, &whole, PIECE), &whole).await;
    let client = StorageClient::new(downloaders().await);
    for peer in served.peers.clone() {
        let get = |range| client.download_piece(peer, key, 0, range);
        for (offset, length) in
            [(0, 0), (0, 1), (1, 1000), (65_535, 1), (65_536, 0), (0, 65_536), (30_000, 20_000)]
        {
            let mut part = Vec::new();
            let reader = get(Some(PieceRange { offset, length })).await.unwrap();
            std::pin::pin!(reader).read_to_end(&mut part).await.unwrap();
            assert_eq!(part, whole[offset as usize..][..length as usize]);
        }
        // Alone where the peer knows how to, which over gRPC no peer does.
        let alone = client.part(peer, key, 0, PieceRange { offset: 7, length: 3 }).await.unwrap();
        let able = extensions && peer.protocol != Protocol::Grpc;
        assert_eq!(alone.as_deref(), able.then_some(&whole[7..10]), "{peer}");
        let mut all = Vec::new();
        std::pin::pin!(get(None).await.unwrap()).read_to_end(&mut all).await.unwrap();
        assert_eq!(all, whole);
        for (offset, length) in [(65_536, 1), (0, 65_537), (u32::MAX, u32::MAX)] {
            let error = get(Some(PieceRange { offset, length })).await.err().unwrap();
            assert!(matches!(error, StorageClientError::Range(_)), "{error}");
        }
    }
}

#[tokio::test]
async fn a_part_is_not_handed_out_where_the_rest_of_the_piece_is_wrong() {
    //= VTX-EXT-023 test
    let (mut listener, peer) = listener().await;
    let piece = content(PIECE as usize);
    let mut bytes = answer(PieceKind::Cache, 0, &piece);
    *bytes.last_mut().unwrap() ^= 1;
    let server = async {
        // As a deployed peer, it ends a connection that asks for an extension.
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut header = [0; limits::HEADER_LEN];
        stream.read_exact(&mut header).await.unwrap();
        assert_eq!(header[1], 0xF2, "a request for the part");
        let mut value = vec![0; header[5].into()];
        stream.read_exact(&mut value).await.unwrap();
        drop(stream);
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; Download::PACKET_LEN];
        stream.read_exact(&mut request).await.unwrap();
        assert_eq!(request[1], 0x06, "a request for the whole piece");
        stream.write_all(&bytes).await.unwrap();
    };
    let client = StorageClient::new(downloaders().await);
    let key = task(PieceKind::Cache, &piece, PIECE).key;
    let part = client.download_piece(peer, key, 0, Some(PieceRange { offset: 0, length: 10 }));
    let ((), part) = tokio::join!(server, part);
    let error = part.err().expect("the piece is not what its digest says");
    assert!(matches!(error, StorageClientError::Download(_)), "{error}");
}

#[tokio::test]
async fn first_requests_share_a_handshake_and_the_end_of_one_ends_no_other() {
    let served = Served::new().await;
    let whole = content(1000);
    let key = served.insert(task(PieceKind::Piece, &whole, PIECE), &whole).await;
    let downloader =
        QuicDownloader::new(dialer(&Trust::Insecure, Deadlines::default()).await, PoolSettings::default());
    let request = || downloader.request(served.quic.address, Ask::new(key.piece(0)));
    // The one who began the handshake goes away before it is complete.
    let mut first = request();
    assert!(futures_util::poll!(&mut first).is_pending());
    let others = join_all((0..20).map(|_| request()));
    let mut others = std::pin::pin!(others);
    assert!(futures_util::poll!(&mut others).is_pending());
    drop(first);
    for answer in others.await {
        assert_eq!(answer.unwrap().collect().await.unwrap(), whole);
    }
    let stats = downloader.stats();
    assert_eq!((stats.dialed, stats.connections, stats.idle), (1, 1, 1), "{stats:?}");
}

#[tokio::test]
async fn more_connections_are_opened_only_while_all_are_busy() {
    let served = Served::new().await;
    let whole = content(1 << 20);
    let key = served.insert(task(PieceKind::Piece, &whole, 1 << 20), &whole).await;
    let settings = PoolSettings { connections_per_peer: 3, ..PoolSettings::default() };
    let downloader = QuicDownloader::new(dialer(&Trust::Insecure, Deadlines::default()).await, settings);
    let request = || downloader.request(served.quic.address, Ask::new(key.piece(0)));
    for _ in 0..5 {
        assert_eq!(request().await.unwrap().collect().await.unwrap(), whole);
    }
    assert_eq!(downloader.stats().dialed, 1);
    for round in 0..20 {
        for answer in join_all((0..6).map(|_| request())).await {
            assert_eq!(answer.unwrap().collect().await.unwrap(), whole, "round {round}");
        }
    }
    assert_eq!(downloader.stats().connections, 3);
}

#[tokio::test]
async fn a_tcp_connection_serves_one_request_after_another() {
    let served = Served::new().await;
    let whole = content(1000);
    let key = served.insert(task(PieceKind::Piece, &whole, PIECE), &whole).await;
    let downloader =
        TcpDownloader::new(dialer(&Trust::Insecure, Deadlines::default()).await, PoolSettings::default());
    let request = |number| downloader.request(served.tcp.address, Ask::new(key.piece(number)));
    for _ in 0..5 {
        assert_eq!(request(0).await.unwrap().collect().await.unwrap(), whole);
        // An Error packet leaves the connection as it is.
        request(1).await.unwrap_err();
    }
    assert_eq!(downloader.stats().dialed, 1);
    // Two answers at a time need two connections, and one that is given up costs its connection.
    let (first, second) = (request(0).await.unwrap(), request(0).await.unwrap());
    drop(first);
    drop(second);
    let stats = downloader.stats();
    assert_eq!((stats.dialed, stats.connections), (2, 0), "{stats:?}");
}

#[tokio::test]
async fn a_request_on_a_stale_connection_goes_out_once_more() {
    //= VTX-TCP-017 test
    let piece = content(100);
    let (mut listener, peer) = listener().await;
    let reply = answer(PieceKind::Piece, 0, &piece);
    let server = async {
        // The first connection ends at the moment of its second request, the second one likewise, unused before.
        let mut request = [0; Download::PACKET_LEN];
        let (mut first, _) = listener.accept().await.unwrap();
        first.read_exact(&mut request).await.unwrap();
        first.write_all(&reply).await.unwrap();
        first.read_exact(&mut request).await.unwrap();
        drop(first);
        let (mut second, _) = listener.accept().await.unwrap();
        second.read_exact(&mut request).await.unwrap();
        second.write_all(&reply).await.unwrap();
        second.read_exact(&mut request).await.unwrap();
        drop(second);
        let (mut third, _) = listener.accept().await.unwrap();
        third.read_exact(&mut request).await.unwrap();
        drop(third);
    };
    let downloader =
        TcpDownloader::new(dialer(&Trust::Insecure, Deadlines::default()).await, PoolSettings::default());
    let ask = Ask::new(Download { kind: PieceKind::Piece, task_id: TaskId::from_sha256([7; 32]), number: 0 });
    let client = async {
        assert_eq!(downloader.request(peer.address, ask).await.unwrap().collect().await.unwrap(), piece);
        assert_eq!(downloader.request(peer.address, ask).await.unwrap().collect().await.unwrap(), piece);
        // Once, and no more: a server that never answers is not asked for ever.
        let error = downloader.request(peer.address, ask).await.unwrap_err();
        assert!(
            matches!(error, DownloadError::Request(RequestError::Failed(Failure::NotAnswered))),
            "{error}"
        );
    };
    tokio::join!(server, client);
}

#[tokio::test]
async fn no_request_follows_a_close() {
    //= VTX-CLS-008 test
    let (tls, _) = server_tls();
    let server = endpoint(Some(&tls)).await;
    let address = server.local_addr().unwrap();
    let piece = content(100);
    let reply = answer(PieceKind::Piece, 0, &piece);
    let serving = tokio::spawn(async move {
        let first = server.accept().await.unwrap().accept().unwrap().await.unwrap();
        let (mut send, _receive) = first.accept_bi().await.unwrap();
        send.write_all(&Header { id: 0, tag: Tag::Close, length: 0 }.encode()).await.unwrap();
        send.finish().unwrap();
        let second = server.accept().await.unwrap().accept().unwrap().await.unwrap();
        let (mut send, _receive) = second.accept_bi().await.unwrap();
        send.write_all(&reply).await.unwrap();
        send.finish().unwrap();
        second.closed().await;
    });
    let downloader =
        QuicDownloader::new(dialer(&Trust::Insecure, Deadlines::default()).await, PoolSettings::default());
    let ask = Ask::new(Download { kind: PieceKind::Piece, task_id: TaskId::from_sha256([7; 32]), number: 0 });
    let error = downloader.request(address, ask).await.unwrap_err();
    assert!(matches!(error, DownloadError::Request(RequestError::Failed(Failure::GoingAway))), "{error}");
    assert_eq!(downloader.request(address, ask).await.unwrap().collect().await.unwrap(), piece);
    drop(downloader);
    serving.await.unwrap();
}

#[tokio::test]
async fn a_peer_that_never_answers_is_given_up_at_the_connect_deadline() {
    //= VTX-LIM-004 test
    let silent = std::net::UdpSocket::bind(LOOPBACK).unwrap();
    // Accepted by the kernel, and never spoken to: only TLS notices.
    let (listener, tcp) = listener().await;
    let deadlines = Deadlines { connect: Duration::from_millis(50), ..Deadlines::default() };
    let (_, pinned) = server_tls();
    let dialer = dialer(&pinned, deadlines).await;
    let downloaders = DownloaderFactory::new(&dialer, PoolSettings::default());
    let ask = Ask::new(Download { kind: PieceKind::Piece, task_id: TaskId::from_sha256([7; 32]), number: 0 });
    for (protocol, address) in [(Protocol::Quic, silent.local_addr().unwrap()), (Protocol::Tcp, tcp.address)]
    {
        let error = downloaders.downloader(protocol).unwrap().request(address, ask).await.unwrap_err();
        assert!(matches!(error, DownloadError::Connect(ConnectError::TimedOut(_))), "{protocol}: {error}");
    }
    drop(listener);
}

#[tokio::test]
async fn a_port_that_nobody_listens_on_is_unreachable() {
    let (listener, peer) = listener().await;
    drop(listener);
    let downloaders = downloaders().await;
    let ask = Ask::new(Download { kind: PieceKind::Piece, task_id: TaskId::from_sha256([7; 32]), number: 0 });
    let error = downloaders.downloader(Protocol::Tcp).unwrap().request(peer.address, ask).await.unwrap_err();
    assert!(matches!(error, DownloadError::Connect(ConnectError::Unreachable(_))), "{error}");
}

#[tokio::test]
async fn where_identity_is_demanded_nothing_goes_out_in_plain() {
    //= VTX-SEC-011 test
    let (mut listener, peer) = listener().await;
    let (_, pinned) = server_tls();
    let dialer =
        dialer(&pinned, Deadlines { connect: Duration::from_millis(500), ..Deadlines::default() }).await;
    let downloader = TcpDownloader::new(dialer, PoolSettings::default());
    let ask = Ask::new(Download { kind: PieceKind::Piece, task_id: TaskId::from_sha256([7; 32]), number: 0 });
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        // The client hello; then a plain answer, as a peer would give that knows no TLS.
        let mut seen = vec![0; 5];
        stream.read_exact(&mut seen).await.unwrap();
        assert_eq!(seen[..2], [0x16, 3], "a TLS record of a handshake");
        stream.write_all(&answer(PieceKind::Piece, 0, b"plain")).await.unwrap();
        seen.clear();
        let _ = stream.read_to_end(&mut seen).await;
        let id = ask.download.task_id;
        assert!(!seen.windows(64).any(|window| window == id.as_bytes()), "a request in plain");
    };
    let (_, error) = tokio::join!(server, downloader.request(peer.address, ask));
    assert!(matches!(error.unwrap_err(), DownloadError::Connect(_)));
}

#[tokio::test]
async fn another_identity_than_the_pinned_is_refused_with_the_reason() {
    let served = Served::new().await;
    let whole = content(10);
    let key = served.insert(task(PieceKind::Piece, &whole, PIECE), &whole).await;
    let pinned = dialer(&served.trust, Deadlines::default()).await;
    let downloader = QuicDownloader::new(pinned, PoolSettings::default());
    let request = downloader.request(served.quic.address, Ask::new(key.piece(0)));
    assert_eq!(request.await.unwrap().collect().await.unwrap(), whole);
    let (_, other) = server_tls();
    let downloader = QuicDownloader::new(dialer(&other, Deadlines::default()).await, PoolSettings::default());
    let error = downloader.request(served.quic.address, Ask::new(key.piece(0))).await.unwrap_err();
    let DownloadError::Connect(ConnectError::Refused(refusal)) = error else { panic!("{error}") };
    assert_eq!(refusal.reason, Reason::Fingerprint);
}

#[tokio::test]
async fn a_downloader_is_an_object() {
    let downloader: Arc<dyn Downloader> = Arc::new(TcpDownloader::new(
        vortex_p2p::downloader::Dialer::plain(runtime(), super::world::network(), Deadlines::default()),
        PoolSettings::default(),
    ));
    let served = Served::new().await;
    let whole = content(10);
    let key = served.insert(task(PieceKind::Piece, &whole, PIECE), &whole).await;
    let piece = downloader.download_piece(served.tcp.address, 0, "", key.id).await.unwrap();
    assert_eq!(piece.content.into_inner(), whole);
    served.server.shutdown().await;
}

#[tokio::test]
async fn a_rejected_answer_leaves_the_others_on_its_connection_alone() {
    //= VTX-QUC-034 test
    let (tls, _) = server_tls();
    let server = endpoint(Some(&tls)).await;
    let address = server.local_addr().unwrap();
    let piece = content(1 << 16);
    let good = answer(PieceKind::Piece, 0, &piece);
    let bad = answer(PieceKind::Piece, 1, &piece);
    let serving = async {
        let connection = server.accept().await.unwrap().accept().unwrap().await.unwrap();
        let (mut first, _) = connection.accept_bi().await.unwrap();
        let (begin, end) = good.split_at(good.len() / 2);
        first.write_all(begin).await.unwrap();
        // Another piece than was asked for, while the first answer is under way.
        let (mut second, _) = connection.accept_bi().await.unwrap();
        second.write_all(&bad).await.unwrap();
        let stopped = second.stopped().await.unwrap();
        assert_eq!(stopped, Some(AppCode::Malformed.into()));
        first.write_all(end).await.unwrap();
        first.finish().unwrap();
        first.stopped().await.unwrap();
        assert!(connection.close_reason().is_none());
    };
    let downloader =
        QuicDownloader::new(dialer(&Trust::Insecure, Deadlines::default()).await, PoolSettings::default());
    let ask = Ask::new(Download { kind: PieceKind::Piece, task_id: TaskId::from_sha256([7; 32]), number: 0 });
    let asking = async {
        let mut first = downloader.request(address, ask).await.unwrap();
        let error = downloader.request(address, ask).await.unwrap_err();
        assert!(
            matches!(error, DownloadError::Request(RequestError::Failed(Failure::Rejected(_)))),
            "{error}"
        );
        assert_eq!(first.collect().await.unwrap(), piece);
    };
    tokio::join!(serving, asking);
    assert_eq!(downloader.stats().dialed, 1);
}

#[tokio::test]
async fn what_a_peer_has_not_announced_it_is_not_asked() {
    //= VTX-EXT-009 test
    let (mut listener, peer) = listener().await;
    let requests = [
        ExtensionRequest::Capabilities,
        ExtensionRequest::Description { kind: PieceKind::Piece, task_id: TaskId::from_sha256([7; 32]) },
        ExtensionRequest::Availability {
            kind: PieceKind::Piece,
            task_id: TaskId::from_sha256([7; 32]),
            first: 0,
            hold: None,
        },
    ];
    let [capabilities, description, availability] = requests;
    // Only the description is announced; then nothing is known any more.
    let server = async {
        let mut asked = Vec::new();
        for answered in [true, false, false, false] {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            stream.read_to_end(&mut request).await.unwrap();
            asked.push(request[1]);
            if answered {
                let answer = Capabilities(vec![Extension::Description]).encode(request[0]);
                stream.write_all(&answer).await.unwrap();
            }
        }
        asked
    };
    let downloader =
        TcpDownloader::new(dialer(&Trust::Insecure, Deadlines::default()).await, PoolSettings::default());
    let ask = |request| downloader.extension(peer.address, request);
    let client = async {
        assert!(ask(capabilities).await.unwrap().is_some());
        assert_eq!(ask(availability).await.unwrap(), None, "not announced: not sent");
        assert_eq!(ask(description).await.unwrap(), None, "announced, and refused");
        // Now what was announced holds no longer.
        assert_eq!(ask(availability).await.unwrap(), None);
        assert_eq!(ask(capabilities).await.unwrap(), None);
    };
    let (asked, ()) = tokio::join!(server, client);
    assert_eq!(asked, [0xF0, 0xF4, 0xF6, 0xF0]);
}
