//! A piece whose bytes on the disk are no longer those that were stored: found out, told, kept from everybody, and fetched
//! again.

use super::world::{Served, content, downloaders, endpoint, listener, runtime, server_tls};
use std::io::Cursor;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use vortex_p2p::client::{Ask, Failure, RequestError};
use vortex_p2p::downloader::transfer::{PlanSettings, Transfer};
use vortex_p2p::downloader::{DownloadError, Peer, Protocol};
use vortex_p2p::server::{ServerSettings, StorageServer};
use vortex_p2p::store::disk::{DiskStore, ImportOptions, OsDisk};
use vortex_p2p::store::{NewTask, PieceStore as _, StoreError};
use vortex_p2p::wire::{Algorithm, ErrorCode, PieceKind, PieceLength};

const PIECE: u64 = 1 << 16;
const PIECES: u32 = 5;

async fn open(directory: &Path) -> DiskStore {
    DiskStore::open(Arc::new(OsDisk::open(directory).unwrap()), runtime()).await.unwrap()
}

fn content_file(directory: &Path) -> PathBuf {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.into_iter().find(|path| path.extension().is_some_and(|it| it == "content")).unwrap()
}

/// What happens to piece 2 behind the store's back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Harm {
    /// A bit of it flips.
    Flipped,
    /// The file ends within it. The pieces behind it are gone as well.
    Cut,
}

async fn is_found_and_fetched_again(harm: Harm, protocol: Protocol) {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    let whole = content((PIECES as usize - 1) * PIECE as usize + 9);
    let options = ImportOptions {
        kind: PieceKind::Piece,
        piece_length: Some(PieceLength::try_from(PIECE).unwrap()),
        algorithm: Algorithm::Crc32,
    };
    let task = store.import_reader(Cursor::new(whole.to_vec()), whole.len() as u64, options).await.unwrap();
    let key = task.key;
    let file = std::fs::File::options().read(true).write(true).open(content_file(directory.path())).unwrap();
    match harm {
        Harm::Flipped => file.write_all_at(&[whole[2 * PIECE as usize + 77] ^ 4], 2 * PIECE + 77).unwrap(),
        Harm::Cut => file.set_len(2 * PIECE + 1000).unwrap(),
    }

    let server = StorageServer::new(runtime(), Arc::new(store.clone()), ServerSettings::default());
    let peer = match protocol {
        Protocol::Quic => {
            let serving = endpoint(Some(&server_tls().0)).await;
            let address = serving.local_addr().unwrap();
            server.serve_quic(serving);
            Peer::new(protocol, address)
        }
        _ => {
            let (listener, peer) = listener().await;
            server.serve_tcp(listener);
            peer
        }
    };
    let client = downloaders().await;
    let downloader = client.downloader(peer.protocol).unwrap();
    let ask = async |number| {
        let mut answer = downloader.request(peer.address, Ask::new(key.piece(number))).await?;
        Ok::<_, DownloadError>(answer.collect().await?)
    };
    // Whoever comes first gets no piece.
    let error = ask(2).await.unwrap_err();
    assert!(matches!(error, DownloadError::Request(RequestError::Failed(_))), "{error:?}");
    // The connection of the broken answer may have ended before the server had found the piece out.
    while store.piece(key.piece(2)).await.is_ok() {
        tokio::task::yield_now().await;
    }
    // Whoever comes then is told.
    let error = ask(2).await.unwrap_err();
    let DownloadError::Request(RequestError::Failed(Failure::Refused { code, message })) = error else {
        panic!("{error:?}")
    };
    assert_eq!((code, message.as_str()), (ErrorCode::Internal, "the stored piece is damaged"));
    // What is in order goes on to be served, from the same file.
    assert_eq!(ask(1).await.unwrap(), whole[PIECE as usize..2 * PIECE as usize]);
    server.shutdown().await;
    drop((client, server));

    // It is remembered.
    drop(store);
    let store = open(directory.path()).await;
    assert!(matches!(store.piece(key.piece(2)).await, Err(StoreError::Damaged { number: 2 })));
    assert!(!store.held(key).await.unwrap().contains(2));

    // And fetched again like any other, into its place.
    let honest = Served::new().await;
    let new = NewTask { key, division: task.division, digest: task.digest };
    honest.insert(new, &whole).await;
    let transfer = Transfer {
        runtime: runtime(),
        downloaders: downloaders().await,
        store: Arc::new(store.clone()),
        task: new,
        digests: Vec::new(),
        wanted: None,
        peers: vec![honest.quic],
        plan: PlanSettings::default(),
        swarm: false,
        limit: None,
        lenient: false,
        observer: None,
    };
    let report = transfer.run().await.unwrap();
    assert_eq!(report.peers[0].pieces, 1, "{report:?}");
    let piece = store.piece(key.piece(2)).await.unwrap();
    piece.verify().await.unwrap();
    assert_eq!(
        piece.content.read(0, usize::MAX).await.unwrap(),
        whole[2 * PIECE as usize..3 * PIECE as usize]
    );
    assert!(file.metadata().unwrap().len() >= 3 * PIECE, "the file is the same as before");
}

#[tokio::test]
async fn a_flipped_bit_is_found_out_by_what_hashes_on_its_way() {
    //= VTX-ERR-011 test
    is_found_and_fetched_again(Harm::Flipped, Protocol::Quic).await;
}

#[tokio::test]
async fn a_file_that_was_cut_is_found_out_over_every_transport() {
    // On plain TCP the kernel reads, and notices no more than that the file ends.
    for protocol in [Protocol::Quic, Protocol::Tcp] {
        is_found_and_fetched_again(Harm::Cut, protocol).await;
    }
}
