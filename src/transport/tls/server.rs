//! The server's side: which identity it shows, whom it admits.

use super::{Authorities, Crypto, ServerIdentity, TlsError};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ServerSessionMemoryCache, WebPkiClientVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme};
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

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

/// Who vouches for the clients of a server, replaceable while it serves: handshakes that begin later go by the new ones.
#[derive(Clone)]
pub struct ClientAuthorities {
    provider: Arc<CryptoProvider>,
    verifier: Arc<RwLock<Arc<dyn ClientCertVerifier>>>,
}

impl ClientAuthorities {
    fn new(crypto: &Crypto, authorities: &Authorities) -> Result<Self, TlsError> {
        let provider = crypto.provider.clone();
        let verifier = Arc::new(RwLock::new(verifier(&provider, authorities)?));
        Ok(Self { provider, verifier })
    }

    /// Goes by `authorities` from now on.
    ///
    /// # Errors
    /// [`TlsError::Authorities`] where they cannot verify anything: then those of before stay.
    pub fn replace(&self, authorities: &Authorities) -> Result<(), TlsError> {
        let verifier = verifier(&self.provider, authorities)?;
        // The cell is whole at any time, so a panic elsewhere cannot have broken it.
        *self.verifier.write().unwrap_or_else(PoisonError::into_inner) = verifier;
        Ok(())
    }

    fn current(&self) -> Arc<dyn ClientCertVerifier> {
        self.verifier.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn verifier(
    provider: &Arc<CryptoProvider>,
    authorities: &Authorities,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    //= VTX-SEC-006
    let builder = WebPkiClientVerifier::builder_with_provider(authorities.0.clone(), provider.clone());
    Ok(builder.build()?)
}

impl fmt::Debug for ClientAuthorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.current(), f)
    }
}

impl ClientCertVerifier for ClientAuthorities {
    /// None: a hint is borrowed for as long as the verifier lives, and these change. Clients then show the certificate
    /// that they have, as peers with one identity do in any case.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.current().verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.current().verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.current().verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.current().supported_verify_schemes()
    }
}

/// A server's identity and admission, for both transports.
#[derive(Debug, Clone)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
    authorities: Option<ClientAuthorities>,
}

impl ServerTls {
    /// Shows `identity` to the clients that `admission` lets in.
    ///
    /// # Errors
    /// [`TlsError`] where the provider has no TLS 1.3, or the authorities cannot verify anything.
    pub fn new(crypto: &Crypto, identity: &ServerIdentity, admission: &Admission) -> Result<Self, TlsError> {
        let builder = ServerConfig::builder_with_details(crypto.provider.clone(), crypto.clock())
            .with_protocol_versions(&[&rustls::version::TLS13])?;
        let authorities = match admission {
            Admission::Anyone => None,
            Admission::Authorities(authorities) => Some(ClientAuthorities::new(crypto, authorities)?),
        };
        let builder = match &authorities {
            None => builder.with_no_client_auth(),
            Some(authorities) => builder.with_client_cert_verifier(Arc::new(authorities.clone())),
        };
        let mut config = builder.with_cert_resolver(Arc::new(identity.clone()));
        config.key_log = crypto.key_log();
        if authorities.is_some() {
            // A resumed handshake shows no certificate, so an expired one would go on being good.
            config.session_storage = Arc::new(NoServerSessionStorage {});
        } else {
            // Sessions are stored here rather than sealed into tickets, and taken out when they are used: this is
            // what makes a ticket good for one connection only.
            //= VTX-QUC-040
            config.session_storage = ServerSessionMemoryCache::new(SESSIONS);
        }
        Ok(Self { config: Arc::new(config), authorities })
    }

    /// Whether clients have to show a certificate. Nothing may be answered then before the handshake is complete.
    pub fn demands_identity(&self) -> bool {
        self.authorities.is_some()
    }

    /// Who vouches for clients; `None` where anyone is admitted.
    pub fn authorities(&self) -> Option<&ClientAuthorities> {
        self.authorities.as_ref()
    }

    /// The configuration for rustls.
    pub fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }
}
