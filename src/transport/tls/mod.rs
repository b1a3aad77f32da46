//! Identity: who a peer is, whom it trusts, and why a handshake was refused. QUIC and TLS over TCP share it.
//!
//! Every configuration built here speaks TLS 1.3 only and has no application protocols; gRPC adds its own.

mod identity;
mod refusal;
mod server;
mod stream;
mod trust;

pub use identity::{Authorities, Fingerprint, FingerprintError, Identity, IdentityPem, ServerIdentity};
pub use refusal::{By, Reason, Refusal};
pub use server::{Admission, ClientAuthorities, ServerTls};
pub use stream::{accept, connect, is_not_tls};
#[cfg(feature = "grpc")]
pub use stream::{accept_http2, connect_http2};
#[cfg(feature = "quic")]
pub(super) use trust::peer_key;
pub use trust::{ClientTls, Trust};

use crate::runtime::SharedRuntime;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::UnixTime;
use rustls::{CipherSuite, KeyLog};
use std::fmt;
use std::sync::Arc;

/// The server name that clients send and that self-made certificates carry.
pub const SERVER_NAME: &str = "d7y";

/// What cannot be turned into a configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The PEM text holds no certificate.
    #[error("expected at least one PEM block `CERTIFICATE`, found none")]
    NoCertificate,
    /// The PEM text is broken.
    #[error("expected PEM text: {0}")]
    Pem(#[from] rustls::pki_types::pem::Error),
    /// A certificate or a key does not parse, they do not belong together, or the provider lacks TLS 1.3.
    #[error("expected certificates with their private key: {0}")]
    Rustls(#[from] rustls::Error),
    /// The authorities cannot verify anything.
    #[error("expected certificates of authorities: {0}")]
    Authorities(#[from] rustls::client::VerifierBuilderError),
    /// The self-signed certificate could not be made.
    #[error("a self-signed certificate could not be made: {0}")]
    Generate(#[from] rcgen::Error),
}

/// ring, with AES-128-GCM before AES-256-GCM and ChaCha20-Poly1305.
///
/// Certificates and key exchange give 128 bits of security, so that longer keys would add none, and they take up to a
/// quarter more time. A server takes the first suite that its client offers: a client without instructions for AES that puts
/// ChaCha20-Poly1305 first gets it.
#[must_use]
pub fn provider() -> CryptoProvider {
    let mut provider = rustls::crypto::ring::default_provider();
    // The order of the others stays: sorting is stable.
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    provider
}

/// The cryptography, the randomness and the clock of every TLS configuration.
#[derive(Clone)]
pub struct Crypto {
    runtime: SharedRuntime,
    provider: Arc<CryptoProvider>,
    key_log: Option<Arc<dyn KeyLog>>,
}

impl Crypto {
    /// The production cryptography: [`provider`].
    pub fn new(runtime: SharedRuntime) -> Self {
        Self::with_provider(runtime, Arc::new(provider()))
    }

    /// A provider from outside; a simulation hands in one that draws its randomness from the seed.
    pub fn with_provider(runtime: SharedRuntime, provider: Arc<CryptoProvider>) -> Self {
        Self { runtime, provider, key_log: None }
    }

    /// Hands the secrets of every connection to `key_log`, so that captured packets can be read.
    #[must_use]
    pub fn with_key_log(mut self, key_log: Arc<dyn KeyLog>) -> Self {
        self.key_log = Some(key_log);
        self
    }

    /// The runtime whose clock judges the dates of certificates.
    pub fn runtime(&self) -> &SharedRuntime {
        &self.runtime
    }

    fn clock(&self) -> Arc<Clock> {
        Arc::new(Clock(self.runtime.clone()))
    }

    fn key_log(&self) -> Arc<dyn KeyLog> {
        self.key_log.clone().unwrap_or_else(|| Arc::new(rustls::NoKeyLog))
    }
}

impl fmt::Debug for Crypto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Crypto").field("key_log", &self.key_log.is_some()).finish_non_exhaustive()
    }
}

/// The runtime's wall clock, as rustls asks for it.
#[derive(Debug)]
struct Clock(SharedRuntime);

impl Clock {
    fn unix_time(&self) -> UnixTime {
        UnixTime::since_unix_epoch(self.0.unix_time())
    }
}

impl rustls::time_provider::TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(self.unix_time())
    }
}
