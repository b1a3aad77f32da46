//! Pieces over gRPC.

use super::pool::{Lease, Pool, PoolSettings, PoolStats, Pooled};
use super::{ConnectError, Dialer, DownloadError, DownloadedPiece, Downloader, Protocol, request_span};
use crate::client::{Answer, Ask, Failure, GrpcClient, RequestError};
use crate::runtime::BoxFuture;
use crate::wire::{Download, PieceKind, TaskId};
use std::net::SocketAddr;
use tracing::Instrument as _;

impl Pooled for GrpcClient {
    const SHARED: bool = true;

    fn is_open(&mut self) -> bool {
        !self.is_closed()
    }

    fn share(&self) -> Option<Self> {
        Some(self.clone())
    }
}

/// Asks peers over gRPC, as they exchanged pieces before Vortex; requests to one peer share its connections.
///
/// An answer is in memory as a whole when [`Downloader::request`] returns: a response of gRPC is one message.
#[derive(Debug)]
pub struct GrpcDownloader {
    pool: Pool<GrpcClient>,
}

impl GrpcDownloader {
    /// A downloader whose connections `dialer` makes.
    #[must_use]
    pub fn new(dialer: Dialer, settings: PoolSettings) -> Self {
        Self { pool: Pool::new(dialer.runtime().clone(), settings, dialer) }
    }

    /// What the pool has done and has.
    #[must_use]
    pub fn stats(&self) -> PoolStats {
        self.pool.stats()
    }

    async fn ask(&self, address: SocketAddr, ask: Ask, host_id: &str) -> Result<Answer, DownloadError> {
        let exchange = |client: GrpcClient, lease: Lease<GrpcClient>| async move {
            // With the answer the whole content is here, so the connection is free for others.
            client.with_host_id(host_id).request(ask).await.map_err(|error| {
                if matches!(error, RequestError::Failed(Failure::GoingAway)) {
                    lease.retire();
                }
                error.into()
            })
        };
        let span = request_span(Protocol::Grpc, address, &ask);
        self.pool.exchange(address, exchange).instrument(span).await
    }
}

impl Downloader for GrpcDownloader {
    fn protocol(&self) -> Protocol {
        Protocol::Grpc
    }

    fn reach(&self, address: SocketAddr) -> BoxFuture<'_, Result<(), ConnectError>> {
        Box::pin(self.pool.reach(address))
    }

    fn request(&self, address: SocketAddr, ask: Ask) -> BoxFuture<'_, Result<Answer, DownloadError>> {
        Box::pin(self.ask(address, ask, ""))
    }

    fn download_piece<'a>(
        &'a self,
        address: SocketAddr,
        number: u32,
        host_id: &'a str,
        task_id: TaskId,
    ) -> BoxFuture<'a, Result<DownloadedPiece, DownloadError>> {
        Box::pin(async move {
            let ask = Ask::new(Download { kind: PieceKind::Piece, task_id, number });
            DownloadedPiece::collect(self.ask(address, ask, host_id).await?).await
        })
    }
}
