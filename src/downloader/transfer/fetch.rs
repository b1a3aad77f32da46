//! One piece: from the request to the store.

use crate::client::{Answer, Ask};
use crate::downloader::{ConnectError, DownloadError, Downloader, Peer};
use crate::rate::RateLimiter;
use crate::runtime::SharedRuntime;
use crate::store::{ParentId, PieceWriter, Provenance, SharedStore, StoreError};
use crate::wire::{Algorithm, Download, Hasher};
use bytes::Bytes;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// How often a writer is asked for that another still has, and how long between: a request that was just given up may
/// have bytes on their way to the disk.
const BUSY: (u32, Duration) = (200, Duration::from_millis(50));

/// How far a request is, for all to see.
#[derive(Debug, Default)]
pub(super) struct Gauge {
    /// When the answer began.
    pub(super) answered_at: OnceLock<Instant>,
    /// Content bytes that have arrived.
    pub(super) received: AtomicU64,
    /// Whether the peer waits for this side: for the disk, or the bandwidth limit.
    pub(super) held_up: AtomicBool,
}

/// What every request needs.
#[derive(Debug, Clone)]
pub(super) struct Means {
    pub(super) runtime: SharedRuntime,
    pub(super) store: SharedStore,
    pub(super) limiter: Option<RateLimiter>,
}

/// A verified piece that waits to be committed.
pub(super) struct Landed {
    content: Landing,
    provenance: Provenance,
    /// Whether the content could be checked against a digest of somebody else's; not always, for a lenient transfer.
    pub(super) verified: bool,
}

enum Landing {
    /// It is in the store.
    Stored(Box<dyn PieceWriter>),
    /// It is in memory: another request has the writer.
    Spare(Vec<Bytes>),
    /// Somebody else has brought it meanwhile.
    Held,
}

/// Why a piece has not landed.
pub(super) enum Lost {
    Download(DownloadError),
    Store(StoreError),
}

impl From<DownloadError> for Lost {
    fn from(error: DownloadError) -> Self {
        Self::Download(error)
    }
}

impl From<StoreError> for Lost {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Means {
    /// Fetches a piece up to, but not including, its commit.
    pub(super) async fn fetch(
        &self,
        downloader: Result<Arc<dyn Downloader>, ConnectError>,
        peer: Peer,
        ask: Ask,
        spare: bool,
        gauge: Arc<Gauge>,
    ) -> Result<Landed, Lost> {
        let asked_at = self.runtime.now();
        let downloader = downloader.map_err(DownloadError::from)?;
        let mut answer = downloader.request(peer.address, ask).await?;
        gauge.answered_at.get_or_init(|| self.runtime.now());
        // Only a lenient request gets here without a digest: then this one says at least whether the disk keeps it.
        let mut own = answer.piece().claim.is_none().then(|| Hasher::new(Algorithm::Crc32));
        let mut content = match spare {
            true => Landing::Spare(Vec::new()),
            false => match self.held_up(&gauge, self.writer(ask.download)).await {
                Ok(writer) => Landing::Stored(writer),
                Err(StoreError::Held { .. }) => Landing::Held,
                Err(error) => return Err(error.into()),
            },
        };
        let mut flow = self.limiter.as_ref().map(RateLimiter::flow);
        while let Some(bytes) = next(&mut answer).await? {
            gauge.received.fetch_add(bytes.len() as u64, Relaxed);
            if let Some(own) = &mut own {
                own.update(&bytes);
            }
            if let Some(flow) = &mut flow {
                self.held_up(&gauge, flow.charge(bytes.len() as u64)).await;
            }
            match &mut content {
                Landing::Stored(writer) => self.held_up(&gauge, writer.write(bytes)).await?,
                Landing::Spare(parts) => parts.push(bytes),
                Landing::Held => break,
            }
        }
        let verified = answer.received().and_then(|received| received.verified);
        let provenance = Provenance {
            digest: verified.unwrap_or_else(|| own.unwrap_or_else(|| Hasher::new(Algorithm::Crc32)).finish()),
            parent_id: ParentId::new(&peer.address.to_string()),
            //= VTX-CNT-015
            cost: self.runtime.now().saturating_duration_since(asked_at).as_secs(),
            created_at: i64::try_from(self.runtime.unix_time().as_secs()).unwrap_or(i64::MAX),
        };
        // What somebody else brought is theirs to answer for.
        let verified = verified.is_some() || matches!(content, Landing::Held);
        Ok(Landed { content, provenance, verified })
    }

    /// Makes a piece durable and visible.
    pub(super) async fn commit(&self, landed: Landed, download: Download) -> Result<(), StoreError> {
        let writer = match landed.content {
            Landing::Held => return Ok(()),
            Landing::Stored(writer) => writer,
            Landing::Spare(parts) => {
                let mut writer = match self.writer(download).await {
                    Ok(writer) => writer,
                    Err(StoreError::Held { .. }) => return Ok(()),
                    Err(error) => return Err(error),
                };
                for bytes in parts {
                    writer.write(bytes).await?;
                }
                writer
            }
        };
        writer.commit(landed.provenance).await
    }

    async fn writer(&self, download: Download) -> Result<Box<dyn PieceWriter>, StoreError> {
        let (attempts, pause) = BUSY;
        for _ in 1..attempts {
            match self.store.writer(download).await {
                Err(StoreError::Busy { .. }) => self.runtime.sleep(pause).await,
                other => return other,
            }
        }
        self.store.writer(download).await
    }

    async fn held_up<T>(&self, gauge: &Gauge, waiting: impl Future<Output = T>) -> T {
        gauge.held_up.store(true, Relaxed);
        let result = waiting.await;
        gauge.held_up.store(false, Relaxed);
        result
    }
}

async fn next(answer: &mut Answer) -> Result<Option<Bytes>, Lost> {
    answer.chunk().await.map_err(|error| Lost::Download(error.into()))
}
