//! Pieces over QUIC.

use super::announced::Announced;
use super::pool::{Lease, Pool, PoolSettings, PoolStats, Pooled};
use super::{ConnectError, Dialer, DownloadError, Downloader, Protocol, request_span};
use crate::client::{Answer, Ask, ExtensionReply, Failure, Progress, QuicClient, RequestError, Source};
use crate::runtime::BoxFuture;
use crate::wire::extension::ExtensionRequest;
use std::net::SocketAddr;
use tracing::Instrument as _;

impl Pooled for QuicClient {
    const SHARED: bool = true;

    fn is_open(&mut self) -> bool {
        self.connection().close_reason().is_none()
    }

    fn share(&self) -> Option<Self> {
        Some(self.clone())
    }
}

/// Asks peers over QUIC; requests to one peer share its connections.
#[derive(Debug)]
pub struct QuicDownloader {
    pool: Pool<QuicClient>,
    announced: Announced,
}

impl QuicDownloader {
    /// A downloader whose connections `dialer` makes.
    #[must_use]
    pub fn new(dialer: Dialer, settings: PoolSettings) -> Self {
        let pool = Pool::new(dialer.runtime().clone(), settings, dialer);
        Self { pool, announced: Announced::default() }
    }

    /// What the pool has done and has.
    #[must_use]
    pub fn stats(&self) -> PoolStats {
        self.pool.stats()
    }

    async fn ask(&self, address: SocketAddr, ask: Ask) -> Result<Answer, DownloadError> {
        let exchange = |client: QuicClient, lease| async move {
            match client.request(ask).await {
                Ok(answer) => Ok(answer.map(|source| Held { source, lease: Some(lease) })),
                Err(error) => Err(explain(error, &client, &lease)),
            }
        };
        let span = request_span(Protocol::Quic, address, &ask);
        self.pool.exchange(address, exchange).instrument(span).await
    }
}

/// The reason behind the loss of a connection, where the connection knows it.
fn explain(error: RequestError, client: &QuicClient, lease: &Lease<QuicClient>) -> DownloadError {
    //= VTX-CLS-008
    if matches!(error, RequestError::Failed(Failure::GoingAway)) {
        lease.retire();
    }
    // A server that refuses this client's certificate can say so only after the handshake is complete here.
    if let RequestError::Lost(_) = error
        && let Some(reason) = client.connection().close_reason()
        && let reason @ (ConnectError::Refused(_) | ConnectError::Limit) = reason.into()
    {
        return reason.into();
    }
    error.into()
}

impl Downloader for QuicDownloader {
    fn protocol(&self) -> Protocol {
        Protocol::Quic
    }

    fn reach(&self, address: SocketAddr) -> BoxFuture<'_, Result<(), ConnectError>> {
        Box::pin(self.pool.reach(address))
    }

    fn request(&self, address: SocketAddr, ask: Ask) -> BoxFuture<'_, Result<Answer, DownloadError>> {
        Box::pin(self.ask(address, ask))
    }

    fn extension(
        &self,
        address: SocketAddr,
        request: ExtensionRequest,
    ) -> BoxFuture<'_, Result<Option<ExtensionReply>, DownloadError>> {
        let exchange = move |client: QuicClient, lease| async move {
            client.extension(&request).await.map_err(|error| explain(error, &client, &lease))
        };
        Box::pin(self.announced.ask(address, request, self.pool.exchange(address, exchange)))
    }
}

/// An answer that counts as a user of its connection until its end.
struct Held {
    source: Box<dyn Source>,
    lease: Option<Lease<QuicClient>>,
}

impl Source for Held {
    fn next(&mut self) -> BoxFuture<'_, Result<Progress, RequestError>> {
        Box::pin(async move {
            let next = self.source.next().await;
            if !matches!(next, Ok(Progress::Content(_))) {
                self.lease = None;
            }
            next
        })
    }
}
