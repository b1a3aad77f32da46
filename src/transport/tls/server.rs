//! The server's side: which identity it shows, whom it admits.

use super::{Authorities, Crypto, ServerIdentity, TlsError};
use rustls::ServerConfig;
use rustls::server::{NoServerSessionStorage, ServerSessionMemoryCache, WebPkiClientVerifier};
use std::sync::Arc;

/// How many sessions a server keeps for resumption. Two go with each handshake, so that the last two thousand
/// clients can resume; one takes less than a kilobyte, and the oldest makes room for the newest.
const SESSIONS: usize = 4096;

/// Which clients a server admits.
#[derive(Debug, Clone)]
pub enum Admission {
    /// Every client, without a certificate.
    Anyone,
    /// Clients whose certificate leads to one of these authorities and is valid now.
    Authorities(Authorities),
}

/// A server's identity and admission, for both transports.
#[derive(Debug, Clone)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
    demands_identity: bool,
}

impl ServerTls {
    /// Shows `identity` to the clients that `admission` lets in.
    ///
    /// # Errors
    /// [`TlsError`] where the provider has no TLS 1.3, or the authorities cannot verify anything.
    pub fn new(crypto: &Crypto, identity: &ServerIdentity, admission: &Admission) -> Result<Self, TlsError> {
        let builder = ServerConfig::builder_with_details(crypto.provider.clone(), crypto.clock())
            .with_protocol_versions(&[&rustls::version::TLS13])?;
        let builder = match admission {
            Admission::Anyone => builder.with_no_client_auth(),
            Admission::Authorities(authorities) => {
                //= VTX-SEC-006
                let verifier = WebPkiClientVerifier::builder_with_provider(
                    authorities.0.clone(),
                    crypto.provider.clone(),
                );
                builder.with_client_cert_verifier(verifier.build()?)
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(identity.clone()));
        config.key_log = crypto.key_log();
        let demands_identity = matches!(admission, Admission::Authorities(_));
        if demands_identity {
            // A resumed handshake shows no certificate, so an expired one would go on being good.
            config.session_storage = Arc::new(NoServerSessionStorage {});
        } else {
            // Sessions are stored here rather than sealed into tickets, and taken out when they are used: this is
            // what makes a ticket good for one connection only.
            //= VTX-QUC-040
            config.session_storage = ServerSessionMemoryCache::new(SESSIONS);
        }
        Ok(Self { config: Arc::new(config), demands_identity })
    }

    /// Whether clients have to show a certificate. Nothing may be answered then before the handshake is complete.
    pub fn demands_identity(&self) -> bool {
        self.demands_identity
    }

    /// The configuration for rustls.
    pub fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }
}
