//! Pieces over TCP.

use super::announced::Announced;
use super::pool::{Lease, Pool, PoolSettings, PoolStats, Pooled};
use super::{ConnectError, Dialer, DownloadError, Downloader, Protocol, request_span};
use crate::client::{Answer, Ask, ExtensionReply, Failure, Rejection, RequestError, TcpClient};
use crate::runtime::BoxFuture;
use crate::wire::DecodeError;
use crate::wire::extension::ExtensionRequest;
use std::net::SocketAddr;
use tracing::Instrument as _;

impl Pooled for TcpClient {
    const SHARED: bool = false;

    fn is_open(&mut self) -> bool {
        !self.is_stale()
    }

    fn share(&self) -> Option<Self> {
        None
    }

    fn may_have_ended(&self) -> bool {
        self.was_used()
    }

    //= VTX-TCP-017
    fn shows_end(error: &RequestError) -> bool {
        matches!(error, RequestError::Lost(_) | RequestError::Failed(Failure::NotAnswered))
    }
}

/// Asks peers over TCP; a connection has one request at a time and is kept for the next.
#[derive(Debug)]
pub struct TcpDownloader {
    pool: Pool<TcpClient>,
    announced: Announced,
}

impl TcpDownloader {
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
        let exchange = |client: TcpClient, lease: Lease<TcpClient>| async move {
            let first = !client.was_used();
            let answer = client.request(ask, Box::new(move |client| lease.give_back(client))).await;
            answer.map_err(|error| explain(error, first))
        };
        let span = request_span(Protocol::Tcp, address, &ask);
        self.pool.exchange(address, exchange).instrument(span).await
    }
}

/// What the failure of a request means: the `first` answer of a connection shows whether the peer speaks Vortex there.
fn explain(error: RequestError, first: bool) -> DownloadError {
    match error {
        // Who speaks TLS answers what is none with an alert, which is a record.
        RequestError::Failed(Failure::Rejected(Rejection::Malformed(DecodeError::TooLong { header })))
            if first && header.is_tls_record() =>
        {
            ConnectError::Protected.into()
        }
        error => error.into(),
    }
}

impl Downloader for TcpDownloader {
    fn protocol(&self) -> Protocol {
        Protocol::Tcp
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
        // The answer takes the connection with it, so the lease ends without one.
        Box::pin(self.announced.ask(address, request, async move {
            let mut lease = self.pool.get_new(address).await?;
            let client = lease.take().ok_or(ConnectError::Closed)?;
            client.extension(&request).await.map_err(|error| explain(error, true))
        }))
    }
}
