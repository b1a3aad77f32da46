//! Providers that count what they do: quinn does not tell which cipher was agreed on, nor whether a session was resumed.

use crate::crypto;
use rustls::crypto::ring::cipher_suite::{TLS13_AES_128_GCM_SHA256, TLS13_CHACHA20_POLY1305_SHA256};
use rustls::crypto::{CipherSuiteCommon, CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm, alg_id};
use rustls::quic::{Algorithm, HeaderProtectionKey, PacketKey};
use rustls::{SignatureScheme, SupportedCipherSuite, Tls13CipherSuite};
use std::cell::Cell;
use std::sync::{Arc, LazyLock};

thread_local! {
    /// Keys of this run: each has a thread of its own.
    static KEYS: Cell<u64> = const { Cell::new(0) };
    static SIGNATURES: Cell<u64> = const { Cell::new(0) };
}

/// The usual ciphers, and signatures that are counted when they are verified.
pub(super) fn counting_signatures() -> Arc<CryptoProvider> {
    let signature_verification_algorithms = WebPkiSupportedAlgorithms {
        all: &[&CountingEd25519],
        mapping: &[(SignatureScheme::ED25519, &[&CountingEd25519])],
    };
    Arc::new(CryptoProvider {
        signature_verification_algorithms,
        ..CryptoProvider::clone(&crypto::provider())
    })
}

/// Signatures that were verified in this run.
pub(super) fn signatures_verified() -> u64 {
    SIGNATURES.get()
}

#[derive(Debug)]
struct CountingEd25519;

impl SignatureVerificationAlgorithm for CountingEd25519 {
    fn verify_signature(&self, key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        SIGNATURES.set(SIGNATURES.get() + 1);
        let ring = rustls::crypto::ring::default_provider().signature_verification_algorithms.all;
        let ed25519 = ring.iter().find(|known| known.public_key_alg_id() == alg_id::ED25519);
        ed25519.ok_or(InvalidSignature)?.verify_signature(key, message, signature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ED25519
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ED25519
    }
}

/// ChaCha20 first; AES-128 has to be there for QUIC's first packets.
pub(super) fn chacha20() -> Arc<CryptoProvider> {
    static COUNTED: LazyLock<Option<Tls13CipherSuite>> = LazyLock::new(|| {
        let suite = TLS13_CHACHA20_POLY1305_SHA256.tls13()?;
        let CipherSuiteCommon { suite: name, hash_provider, confidentiality_limit } = suite.common;
        Some(Tls13CipherSuite {
            common: CipherSuiteCommon { suite: name, hash_provider, confidentiality_limit },
            hkdf_provider: suite.hkdf_provider,
            aead_alg: suite.aead_alg,
            quic: Some(&Counting),
        })
    });
    let chacha20 = COUNTED.as_ref().map(SupportedCipherSuite::Tls13);
    let cipher_suites = chacha20.into_iter().chain([TLS13_AES_128_GCM_SHA256]).collect();
    Arc::new(CryptoProvider { cipher_suites, ..CryptoProvider::clone(&crypto::provider()) })
}

/// ChaCha20 keys that were made in this run.
pub(super) fn keys_made() -> u64 {
    KEYS.get()
}

struct Counting;

impl Counting {
    fn inner() -> &'static dyn Algorithm {
        // The suite has QUIC: it is one of TLS 1.3, and ring's.
        static INNER: LazyLock<Option<&'static dyn Algorithm>> =
            LazyLock::new(|| TLS13_CHACHA20_POLY1305_SHA256.tls13()?.quic);
        INNER.unwrap_or(&Counting)
    }
}

impl Algorithm for Counting {
    fn packet_key(
        &self,
        key: rustls::crypto::cipher::AeadKey,
        iv: rustls::crypto::cipher::Iv,
    ) -> Box<dyn PacketKey> {
        KEYS.set(KEYS.get() + 1);
        Self::inner().packet_key(key, iv)
    }

    fn header_protection_key(&self, key: rustls::crypto::cipher::AeadKey) -> Box<dyn HeaderProtectionKey> {
        Self::inner().header_protection_key(key)
    }

    fn aead_key_len(&self) -> usize {
        Self::inner().aead_key_len()
    }
}
