//! The client's side: which servers it trusts.

use super::{Authorities, Clock, Crypto, Fingerprint, Identity, Refusal, SERVER_NAME, TlsError};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{
    ClientSessionMemoryCache, ClientSessionStore, Resumption, Tls12ClientSessionValue,
    Tls13ClientSessionValue, WebPkiServerVerifier,
};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, DnsName, ServerName, UnixTime};
use rustls::sign::SingleCertAndKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, NamedGroup, OtherError, SignatureScheme,
};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

/// How many servers a client remembers sessions of: those of a full connection pool.
const SERVERS: usize = 2048;

/// Which servers a client trusts. There is no default: whoever trusts everybody says so.
#[derive(Debug, Clone)]
pub enum Trust {
    /// Every server. Only the handshake's signature is verified, which proves nothing about who signed.
    //= VTX-SEC-004
    Insecure,
    /// The server whose end-entity certificate has this fingerprint; its dates and name do not matter.
    Pinned(Fingerprint),
    /// Servers whose certificate leads to one of these authorities, is valid now and carries `name`.
    Authorities {
        /// Who may have issued the certificate.
        authorities: Authorities,
        /// The name that is sent and that the certificate has to carry.
        name: ServerName<'static>,
    },
}

/// The name `d7y`.
fn default_name() -> ServerName<'static> {
    // The constant is a DNS name, so the other arm, which would send no name, is never taken.
    DnsName::try_from(SERVER_NAME)
        .map_or(ServerName::IpAddress(Ipv4Addr::UNSPECIFIED.into()), ServerName::DnsName)
}

impl Trust {
    /// Servers that show a certificate for the name `d7y` from one of `authorities`.
    pub fn authorities(authorities: Authorities) -> Self {
        Self::Authorities { authorities, name: default_name() }
    }
}

/// A client's trust and its identity, for both transports. Sessions live in here: they are resumed under the trust they
/// were established under and with the server they were established with, never elsewhere.
#[derive(Debug, Clone)]
pub struct ClientTls {
    demands_identity: bool,
    config: ClientConfig,
    name: ServerName<'static>,
    verifier: Arc<dyn ServerCertVerifier>,
    clock: Arc<Clock>,
    //= VTX-QUC-045
    sessions: Arc<ClientSessionMemoryCache>,
}

impl ClientTls {
    /// Trusts as `trust` says, and shows `identity` to servers that demand one.
    ///
    /// # Errors
    /// [`TlsError`] where the provider has no TLS 1.3, or the authorities cannot verify anything.
    pub fn new(crypto: &Crypto, trust: &Trust, identity: Option<&Identity>) -> Result<Self, TlsError> {
        let algorithms = crypto.provider.signature_verification_algorithms;
        let verifier: Arc<dyn ServerCertVerifier> = match trust {
            Trust::Insecure => Arc::new(ByKey { pinned: None, algorithms }),
            Trust::Pinned(fingerprint) => Arc::new(ByKey { pinned: Some(*fingerprint), algorithms }),
            Trust::Authorities { authorities, .. } => {
                //= VTX-SEC-007
                WebPkiServerVerifier::builder_with_provider(authorities.0.clone(), crypto.provider.clone())
                    .build()?
            }
        };
        //= VTX-QUC-004
        let name = match trust {
            Trust::Insecure | Trust::Pinned(_) => default_name(),
            Trust::Authorities { name, .. } => name.clone(),
        };
        let clock = crypto.clock();
        // rustls begins with an empty list of application protocols, and nothing here adds one.
        //= VTX-QUC-002
        let builder = ClientConfig::builder_with_details(crypto.provider.clone(), clock.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(verifier.clone());
        let mut config = match identity {
            Some(identity) => {
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity.0.clone())))
            }
            None => builder.with_no_client_auth(),
        };
        config.key_log = crypto.key_log();
        let demands_identity = !matches!(trust, Trust::Insecure);
        Ok(Self {
            demands_identity,
            config,
            name,
            verifier,
            clock,
            sessions: Arc::new(ClientSessionMemoryCache::new(SERVERS)),
        })
    }

    /// Whether servers have to show who they are: then nothing may be said to them in plain.
    pub fn demands_identity(&self) -> bool {
        self.demands_identity
    }

    /// The name that is sent, and verified where names are.
    pub fn name(&self) -> &ServerName<'static> {
        &self.name
    }

    /// The configuration for one connection to `peer`.
    ///
    /// All servers are called `d7y`, and rustls files sessions by name: left alone, it would offer each server the
    /// tickets of another. So they are filed by address.
    pub fn for_peer(&self, peer: SocketAddr) -> ClientConfig {
        let mut config = self.config.clone();
        config.resumption = Resumption::store(Arc::new(PeerSessions {
            peer: file_name(peer),
            sessions: self.sessions.clone(),
        }));
        config
    }

    /// Verifies certificates that were verified before, when the session that is resumed was new: it shows none, and
    /// the dates may have passed since.
    ///
    /// # Errors
    /// The [`Refusal`], where they would not be accepted now.
    pub fn verify_again(&self, certificates: &[CertificateDer<'_>]) -> Result<(), Refusal> {
        let error = match certificates.split_first() {
            None => Error::NoCertificatesPresented,
            Some((end_entity, intermediates)) => {
                let now = self.clock.unix_time();
                match self.verifier.verify_server_cert(end_entity, intermediates, &self.name, &[], now) {
                    Ok(_) => return Ok(()),
                    Err(error) => error,
                }
            }
        };
        let detail = error.to_string();
        Err(Refusal::from_tls(&error).unwrap_or(Refusal {
            by: super::By::This,
            reason: super::Reason::Authority,
            detail,
        }))
    }
}

/// Trusts a server for its key: a pinned one, or any.
#[derive(Debug)]
struct ByKey {
    pinned: Option<Fingerprint>,
    algorithms: WebPkiSupportedAlgorithms,
}

/// The certificate is another one than the pinned.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("expected the certificate with the SHA-256 fingerprint {expected}, found {found}")]
struct WrongFingerprint {
    expected: Fingerprint,
    found: Fingerprint,
}

impl ServerCertVerifier for ByKey {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        //= VTX-SEC-005
        let found = Fingerprint::of(end_entity);
        match self.pinned {
            Some(expected) if expected != found => {
                let wrong = OtherError(Arc::new(WrongFingerprint { expected, found }));
                Err(Error::InvalidCertificate(CertificateError::Other(wrong)))
            }
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        //= VTX-SEC-005
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The name under which sessions and tokens of `peer` are filed: an address and a port, spelled as a DNS name has to be.
pub(in crate::transport) fn peer_key(peer: SocketAddr) -> String {
    let ip = match peer.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    format!("peer-{:032x}-{}", u128::from(ip), peer.port())
}

fn file_name(peer: SocketAddr) -> ServerName<'static> {
    // Letters, digits and single hyphens, 48 at most: always a DNS name.
    DnsName::try_from(peer_key(peer)).map_or(ServerName::IpAddress(peer.ip().into()), ServerName::DnsName)
}

/// The sessions with one server, in the store of all.
#[derive(Debug)]
struct PeerSessions {
    peer: ServerName<'static>,
    sessions: Arc<ClientSessionMemoryCache>,
}

impl ClientSessionStore for PeerSessions {
    fn set_kx_hint(&self, _name: ServerName<'static>, group: NamedGroup) {
        self.sessions.set_kx_hint(self.peer.clone(), group);
    }
    fn kx_hint(&self, _name: &ServerName<'_>) -> Option<NamedGroup> {
        self.sessions.kx_hint(&self.peer)
    }
    // TLS 1.2 is never spoken, so it has no sessions.
    fn set_tls12_session(&self, _name: ServerName<'static>, _value: Tls12ClientSessionValue) {}
    fn tls12_session(&self, _name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }
    fn remove_tls12_session(&self, _name: &ServerName<'static>) {}
    fn insert_tls13_ticket(&self, _name: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.sessions.insert_tls13_ticket(self.peer.clone(), value);
    }
    fn take_tls13_ticket(&self, _name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.sessions.take_tls13_ticket(&self.peer)
    }
}
