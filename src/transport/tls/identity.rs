//! Certificates: one's own, those of authorities, and their fingerprints.

use super::{Crypto, SERVER_NAME, TlsError};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use sha2::{Digest, Sha256};
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, PoisonError, RwLock};

/// An identity as text: [`Identity::from_pem`] reads it.
pub struct IdentityPem {
    /// The certificate.
    pub certificate: String,
    /// The private key, a secret.
    pub key: String,
}

impl fmt::Debug for IdentityPem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdentityPem").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// SHA-256 of an end-entity certificate in DER; written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The fingerprint of `certificate`.
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        Self(Sha256::digest(certificate.as_ref()).into())
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Text that is no fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a SHA-256 fingerprint: 64 hexadecimal digits, colons between pairs allowed")]
pub struct FingerprintError;

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    /// Takes digits of either case, and the colons that `openssl x509 -fingerprint` prints between pairs.
    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        let pairs: Vec<u8> = match text.contains(':') {
            true => {
                let pairs: Vec<&str> = text.split(':').collect();
                if pairs.iter().any(|pair| pair.len() != 2) {
                    return Err(FingerprintError);
                }
                pairs.concat().into_bytes()
            }
            false => text.as_bytes().to_vec(),
        };
        if pairs.len() != 64 {
            return Err(FingerprintError);
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(pairs.chunks_exact(2)) {
            for &digit in pair {
                let digit = char::from(digit).to_digit(16).ok_or(FingerprintError)?;
                // Two digits below 16: the shift drops nothing, and the sum fits.
                *byte = (*byte << 4) | u8::try_from(digit).map_err(|_| FingerprintError)?;
            }
        }
        Ok(Self(bytes))
    }
}

/// A certificate chain and the private key of its first certificate, known to belong together.
#[derive(Clone)]
pub struct Identity(pub(super) Arc<CertifiedKey>);

impl Identity {
    /// A new Ed25519 key with a certificate that it signed itself.
    ///
    /// The key is drawn from the runtime. The dates cover every clock a peer may have, because nobody who trusts a
    /// self-signed certificate looks at them.
    ///
    /// # Errors
    /// [`TlsError::Generate`] and [`TlsError::Rustls`] where the provider cannot sign with Ed25519.
    pub fn self_signed(crypto: &Crypto) -> Result<Self, TlsError> {
        Self::self_signed_pem(crypto).map(|(identity, _)| identity)
    }

    /// As [`self_signed`](Self::self_signed), with what has to be kept for the identity to outlive the process.
    ///
    /// # Errors
    /// As of [`self_signed`](Self::self_signed).
    pub fn self_signed_pem(crypto: &Crypto) -> Result<(Self, IdentityPem), TlsError> {
        // PKCS #8 of an Ed25519 key (RFC 8410, section 7): this prefix, then the 32 bytes of the seed.
        const PREFIX: [u8; 16] = *b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
        let mut seed = [0; 32];
        crypto.runtime.fill_random(&mut seed);
        let key = PrivatePkcs8KeyDer::from([PREFIX.as_slice(), seed.as_slice()].concat());
        let pair = rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&key, &rcgen::PKCS_ED25519)?;
        //= VTX-QUC-006
        let mut parameters = rcgen::CertificateParams::new(vec![SERVER_NAME.to_owned()])?;
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        parameters.distinguished_name.push(rcgen::DnType::CommonName, SERVER_NAME);
        let certificate = parameters.self_signed(&pair)?;
        let pem = IdentityPem { certificate: certificate.pem(), key: pair.serialize_pem() };
        Ok((Self::from_der(crypto, vec![certificate.der().clone()], key.into())?, pem))
    }

    /// Certificates, the end entity's first, and its private key (PKCS #8, PKCS #1 or SEC 1), both in PEM.
    ///
    /// # Errors
    /// [`TlsError::NoCertificate`], [`TlsError::Pem`], and [`TlsError::Rustls`] where the two do not belong together.
    pub fn from_pem(crypto: &Crypto, certificates: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        Self::from_der(crypto, certificates_from_pem(certificates)?, PrivateKeyDer::from_pem_slice(key)?)
    }

    /// As [`from_pem`](Self::from_pem), from DER.
    ///
    /// # Errors
    /// [`TlsError::NoCertificate`], and [`TlsError::Rustls`] where the two do not belong together.
    pub fn from_der(
        crypto: &Crypto,
        certificates: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, TlsError> {
        if certificates.is_empty() {
            return Err(TlsError::NoCertificate);
        }
        Ok(Self(Arc::new(CertifiedKey::from_der(certificates, key, &crypto.provider)?)))
    }

    /// The certificates in DER, the end entity's first.
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.0.cert
    }

    /// What a client pins to accept this identity only.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.0.cert.first().map(Fingerprint::of)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Identity").field(&self.fingerprint()).finish()
    }
}

/// The certificate authorities that somebody trusts; at least one.
#[derive(Clone)]
pub struct Authorities(pub(super) Arc<RootCertStore>);

impl Authorities {
    /// Certificates of authorities in PEM.
    ///
    /// # Errors
    /// [`TlsError::NoCertificate`], [`TlsError::Pem`], and [`TlsError::Rustls`] for one that cannot be an authority.
    pub fn from_pem(certificates: &[u8]) -> Result<Self, TlsError> {
        Self::from_der(certificates_from_pem(certificates)?)
    }

    /// Certificates of authorities in DER.
    ///
    /// # Errors
    /// [`TlsError::NoCertificate`], and [`TlsError::Rustls`] for one that cannot be an authority.
    pub fn from_der(certificates: Vec<CertificateDer<'static>>) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        certificates.into_iter().try_for_each(|certificate| roots.add(certificate))?;
        match roots.is_empty() {
            true => Err(TlsError::NoCertificate),
            false => Ok(Self(Arc::new(roots))),
        }
    }
}

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authorities({})", self.0.len())
    }
}

fn certificates_from_pem(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>()?;
    match certificates.is_empty() {
        true => Err(TlsError::NoCertificate),
        false => Ok(certificates),
    }
}

/// The identity that a server shows, replaceable while it serves: handshakes that begin later show the new one.
#[derive(Clone)]
pub struct ServerIdentity(Arc<RwLock<Identity>>);

impl ServerIdentity {
    /// Shows `identity`.
    pub fn new(identity: Identity) -> Self {
        Self(Arc::new(RwLock::new(identity)))
    }

    /// Shows `identity` from now on.
    pub fn replace(&self, identity: Identity) {
        // The cell is whole at any time, so a panic elsewhere cannot have broken it.
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = identity;
    }

    /// What is shown now.
    pub fn current(&self) -> Identity {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for ServerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.current(), f)
    }
}

impl ResolvesServerCert for ServerIdentity {
    /// The one identity, whatever the client called this server.
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        //= VTX-QUC-005
        Some(self.current().0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_fingerprint_reads_what_it_writes(bytes in any::<[u8; 32]>(), upper in any::<bool>(), colons in any::<bool>()) {
            let fingerprint = Fingerprint(bytes);
            let mut text = fingerprint.to_string();
            if colons {
                text = bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":");
            }
            if upper {
                text = text.to_uppercase();
            }
            prop_assert_eq!(text.parse(), Ok(fingerprint));
        }

        #[test]
        fn other_text_is_no_fingerprint(text in "[0-9a-fg:]{0,70}") {
            let digits = text.chars().filter(|c| *c != ':').count();
            prop_assume!(digits != 64 || text.contains('g'));
            prop_assert_eq!(text.parse::<Fingerprint>(), Err(FingerprintError));
        }
    }
}
