//! Pieces from peers, files from pieces.
//!
//! A [`Downloader`] asks peers over one protocol and keeps connections to them; there is one each for QUIC, TCP and
//! gRPC, and [`AutoDownloader`] for peers that speak several of them. [`DownloaderFactory`] makes the one that a
//! configuration names. Whoever wants a piece from a given peer takes a [`StorageClient`].

mod announced;
mod auto;
mod dialer;
mod error;
mod factory;
#[cfg(feature = "grpc")]
mod grpc;
mod peer;
mod pool;
#[cfg(feature = "quic")]
mod quic;
mod storage_client;
mod tcp;
pub mod transfer;

pub use auto::{AutoDownloader, AutoEvent, AutoObserver, AutoSettings};
pub use dialer::Dialer;
pub use error::{ConnectError, DownloadError};
pub use factory::DownloaderFactory;
#[cfg(feature = "grpc")]
pub use grpc::GrpcDownloader;
pub use peer::{Peer, PeerError, PeerName, Protocol};
pub use pool::{PoolSettings, PoolStats};
#[cfg(feature = "quic")]
pub use quic::QuicDownloader;
pub use storage_client::{PieceRange, RangeError, StorageClient, StorageClientError};
pub use tcp::TcpDownloader;

use crate::client::{Answer, Ask, ExtensionReply};
use crate::runtime::BoxFuture;
use crate::wire::extension::ExtensionRequest;
use crate::wire::{Digest, Download, PieceKind, TaskId};
use std::fmt;
use std::io::Cursor;
use std::net::SocketAddr;
use tracing::Span;

/// Within which logs tell of a request and its answer. Which connection of the pool has it is known later.
fn request_span(protocol: Protocol, peer: SocketAddr, ask: &Ask) -> Span {
    let Download { task_id, number, .. } = ask.download;
    let connection = tracing::field::Empty;
    tracing::debug_span!("request", %protocol, %peer, task = %task_id.short(), piece = number, connection)
}

/// A piece in memory, in the shape of the proposal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DownloadedPiece {
    /// The bytes, verified.
    pub content: Cursor<Vec<u8>>,
    /// Where the peer says that the piece begins in its task. Not to be used as a position: derive that.
    pub offset: u64,
    /// The digest of the content, computed here.
    pub digest: Digest,
}

impl DownloadedPiece {
    /// The piece that a strict request is answered with.
    async fn collect(mut answer: Answer) -> Result<Self, DownloadError> {
        let content = Cursor::new(answer.collect().await?);
        let offset = answer.piece().claimed_offset;
        let digest = answer.received().and_then(|received| received.verified);
        // A strict request ends without an error only with a digest.
        let digest = digest.ok_or(crate::client::Failure::NotAnswered)?;
        Ok(Self { content, offset, digest })
    }
}

/// Asks peers for pieces over one protocol.
pub trait Downloader: Send + Sync + fmt::Debug + 'static {
    /// Which protocol it speaks.
    fn protocol(&self) -> Protocol;

    /// Makes sure that there is a connection to the peer at `address`, so that a request finds one.
    ///
    /// # Errors
    /// [`ConnectError`].
    fn reach(&self, address: SocketAddr) -> BoxFuture<'_, Result<(), ConnectError>>;

    /// Asks the peer at `address` and waits for the begin of its answer, whose content then streams.
    ///
    /// Dropped, the request is given up; so is the answer.
    ///
    /// # Errors
    /// [`DownloadError`].
    fn request(&self, address: SocketAddr, ask: Ask) -> BoxFuture<'_, Result<Answer, DownloadError>>;

    /// Sends the peer at `address` a request of an extension. `None`: it does not know the extension, or this protocol has
    /// none.
    ///
    /// # Errors
    /// [`DownloadError`].
    fn extension(
        &self,
        address: SocketAddr,
        request: ExtensionRequest,
    ) -> BoxFuture<'_, Result<Option<ExtensionReply>, DownloadError>> {
        let _ = (address, request);
        Box::pin(std::future::ready(Ok(None)))
    }

    /// Downloads a whole piece of a task of the ordinary kind into memory, at most 1 GiB.
    ///
    /// `host_id` names this host to peers that are spoken to over gRPC; Vortex has no place for it.
    ///
    /// # Errors
    /// [`DownloadError`].
    fn download_piece<'a>(
        &'a self,
        address: SocketAddr,
        number: u32,
        host_id: &'a str,
        task_id: TaskId,
    ) -> BoxFuture<'a, Result<DownloadedPiece, DownloadError>> {
        let _ = host_id;
        Box::pin(async move {
            let ask = Ask::new(Download { kind: PieceKind::Piece, task_id, number });
            DownloadedPiece::collect(self.request(address, ask).await?).await
        })
    }
}
