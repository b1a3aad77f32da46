//! How it is told that two do not get on: TLS at one end only, and connections that are lost.

use super::world::{Served, answer, content, dialer, downloaders, endpoint, listener, server_tls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use vortex_p2p::client::Ask;
use vortex_p2p::downloader::{
    Downloader, DownloaderFactory, Peer, PoolSettings, QuicDownloader, TcpDownloader,
};
use vortex_p2p::session::Deadlines;
use vortex_p2p::transport::tls::Trust;
use vortex_p2p::wire::extension::ExtensionRequest;
use vortex_p2p::wire::{Download, PieceKind, TaskId};

/// What a client without TLS is told of a peer that speaks it, and the other way round.
pub(super) const TLS: &str = "the peer speaks TLS on this port, expected plain Vortex";
pub(super) const NO_TLS: &str = "the peer does not speak TLS on this port, expected TLS";

fn task_id() -> TaskId {
    TaskId::from_sha256([7; 32])
}

fn ask(kind: PieceKind) -> Ask {
    Ask::new(Download { kind, task_id: task_id(), number: 0 })
}

/// What becomes of a request for a piece of each kind, and of a request of an extension.
async fn asked(downloaders: &DownloaderFactory, peer: Peer) -> Vec<String> {
    let downloader = downloaders.downloader(peer.protocol).unwrap();
    let mut told = Vec::new();
    for kind in PieceKind::ALL {
        told.push(downloader.request(peer.address, ask(kind)).await.unwrap_err().to_string());
    }
    let request = ExtensionRequest::Description { kind: PieceKind::Piece, task_id: task_id() };
    told.push(downloader.extension(peer.address, request).await.unwrap_err().to_string());
    told
}

#[test]
fn the_book_has_the_words() {
    let page = crate::committed::read("book/src/using/security.md");
    for told in [TLS, NO_TLS] {
        assert!(page.lines().any(|line| line.ends_with(&format!("| {told} |"))), "{told}");
    }
}

#[tokio::test]
async fn a_port_that_speaks_tls_is_told_as_such_to_who_asks_in_plain_bytes() {
    let served = Served::new().await;
    let protected = served.tcp_tls().await;
    assert_eq!(asked(&downloaders().await, protected).await, [TLS; 5]);
}

#[tokio::test]
async fn a_port_without_tls_is_told_as_such_to_who_expects_it() {
    let served = Served::new().await;
    let pinned = dialer(&served.trust, Deadlines::default()).await;
    let downloaders = DownloaderFactory::new(&pinned, PoolSettings::default());
    assert_eq!(asked(&downloaders, served.tcp).await, [NO_TLS; 5]);
    // A server at its limit, one that shuts down, and what else may answer on a port.
    let others = [
        &b"\x00\xff\x00\x00\x00\x05\x03full"[..],
        b"\x00\xfe\x00\x00\x00\x00",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"SSH-2.0-\r\n",
    ];
    for answer in others {
        let (mut listener, peer) = listener().await;
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(answer).await.unwrap();
            let _ = stream.read_to_end(&mut Vec::new()).await;
        });
        let told = downloaders.downloader(peer.protocol).unwrap().reach(peer.address).await.unwrap_err();
        assert_eq!(told.to_string(), NO_TLS, "{answer:?}");
    }
    // Who ends without a word may speak anything.
    let (mut listener, peer) = listener().await;
    tokio::spawn(async move { drop(listener.accept().await) });
    let told = downloaders.downloader(peer.protocol).unwrap().reach(peer.address).await.unwrap_err();
    assert!(told.to_string().starts_with("the peer can't be reached"), "{told}");
}

/// What a client in plain bytes makes of the answers to its requests, one after another on one connection.
async fn answered(answers: Vec<Vec<u8>>) -> Vec<Result<Vec<u8>, String>> {
    let (mut listener, peer) = listener().await;
    let count = answers.len();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        for answer in answers {
            stream.read_exact(&mut [0; 74]).await.unwrap();
            stream.write_all(&answer).await.unwrap();
        }
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    let dialer = dialer(&Trust::Insecure, Deadlines::default()).await;
    let downloader = TcpDownloader::new(dialer, PoolSettings::default());
    let mut told = Vec::new();
    for _ in 0..count {
        told.push(match downloader.request(peer.address, ask(PieceKind::Persistent)).await {
            Ok(mut answer) => Ok(answer.collect().await.unwrap().to_vec()),
            Err(error) => Err(error.to_string()),
        });
    }
    drop(downloader);
    server.await.unwrap();
    told
}

#[tokio::test]
async fn only_what_begins_a_connection_like_tls_is_told_as_tls() {
    let header = |id, tag, version| vec![id, tag, version, 0, 2, 2, 50];
    for id in 0x14..=0x17 {
        for version in 1..=4 {
            assert_eq!(answered(vec![header(id, 3, version)]).await, [Err(TLS.to_owned())]);
        }
    }
    for other in [header(0x13, 3, 3), header(0x18, 3, 3), header(0x15, 2, 3), header(0x15, 3, 5)] {
        let told = answered(vec![other]).await.remove(0).unwrap_err();
        assert!(told.starts_with("the answer was rejected: too-long"), "{told}");
    }
    // The tag of persistent content is the first byte of the version of TLS, and an id may be anything.
    let piece = content(100);
    let mut good = answer(PieceKind::Persistent, 0, &piece);
    good[0] = 0x15;
    let [first, second] = answered(vec![good, header(0x15, 3, 3)]).await.try_into().unwrap();
    assert_eq!(first.unwrap(), piece);
    // The peer has spoken Vortex before: this is no other protocol, but a wrong answer.
    assert!(second.unwrap_err().starts_with("the answer was rejected: too-long"));
}

#[tokio::test]
async fn a_lost_connection_is_told_with_its_reason_once() {
    for (reason, told) in [
        (&b""[..], "the connection was lost: closed by peer: 0"),
        (b"bye", "the connection was lost: closed by peer: bye (code 0)"),
        // The peer's words, which would end the line and steer the terminal.
        (b"bye\nhint: \x1b[2J", r"the connection was lost: closed by peer: bye\nhint: \u{1b}[2J (code 0)"),
    ] {
        let (tls, _) = server_tls();
        let server = endpoint(Some(&tls)).await;
        let address = server.local_addr().unwrap();
        tokio::spawn(async move {
            while let Some(incoming) = server.accept().await {
                let connection = incoming.accept().unwrap().await.unwrap();
                let _request = connection.accept_bi().await.unwrap();
                connection.close(0u32.into(), reason);
            }
        });
        let dialer = dialer(&Trust::Insecure, Deadlines::default()).await;
        let downloader = QuicDownloader::new(dialer, PoolSettings::default());
        let error = downloader.request(address, ask(PieceKind::Piece)).await.unwrap_err();
        assert_eq!(error.to_string(), told);
        let request = ExtensionRequest::Description { kind: PieceKind::Piece, task_id: task_id() };
        let error = downloader.extension(address, request).await.unwrap_err();
        assert_eq!(error.to_string(), told);
    }
}
