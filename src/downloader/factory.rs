//! The downloader that a configuration names.

use super::{ConnectError, Dialer, Downloader, PoolSettings, Protocol, TcpDownloader};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Makes downloaders by protocol, one of each: who asks twice gets the same one, with its connections.
#[derive(Debug, Clone, Default)]
pub struct DownloaderFactory {
    downloaders: BTreeMap<Protocol, Arc<dyn Downloader>>,
}

impl DownloaderFactory {
    /// The downloaders whose connections `dialer` makes: TCP, and QUIC and gRPC where the build has them.
    #[must_use]
    pub fn new(dialer: &Dialer, settings: PoolSettings) -> Self {
        let factory = Self::default().with(Arc::new(TcpDownloader::new(dialer.clone(), settings)));
        #[cfg(feature = "quic")]
        let factory = factory.with(Arc::new(super::QuicDownloader::new(dialer.clone(), settings)));
        #[cfg(feature = "grpc")]
        let factory = factory.with(Arc::new(super::GrpcDownloader::new(dialer.clone(), settings)));
        factory
    }

    /// The same with `downloader` for its protocol.
    #[must_use]
    pub fn with(mut self, downloader: Arc<dyn Downloader>) -> Self {
        self.downloaders.insert(downloader.protocol(), downloader);
        self
    }

    /// The downloader for `protocol`.
    ///
    /// # Errors
    /// [`ConnectError::Unavailable`] where nobody here speaks it.
    pub fn downloader(&self, protocol: Protocol) -> Result<&Arc<dyn Downloader>, ConnectError> {
        self.downloaders.get(&protocol).ok_or(ConnectError::Unavailable(protocol))
    }
}

#[cfg(feature = "config")]
impl Protocol {
    /// The protocol that a configuration names; `None` for `auto`, which names all of them.
    #[must_use]
    pub fn configured(protocol: crate::config::Protocol) -> Option<Self> {
        match protocol {
            crate::config::Protocol::Auto => None,
            crate::config::Protocol::Quic => Some(Self::Quic),
            crate::config::Protocol::Tcp => Some(Self::Tcp),
            crate::config::Protocol::Grpc => Some(Self::Grpc),
        }
    }
}
