//! Real TLS with drawn randomness: the only two places in which rustls asks for any.
//!
//! `CryptoProvider` wants a `&'static` source, so the stream of a run is kept with the thread that runs it (each run has
//! a thread of its own).

use crate::notes;
use crate::rng::{Rng, Seed};
use rustls::crypto::{
    ActiveKeyExchange, CryptoProvider, GetRandomFailed, SecureRandom, SharedSecret, SupportedKxGroup,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{Error, KeyLog, NamedGroup, PeerMisbehaved};
use std::cell::RefCell;
use std::sync::Arc;
use x25519_dalek::{PublicKey, StaticSecret};

thread_local! {
    static STREAM: RefCell<Option<Rng>> = const { RefCell::new(None) };
}

/// Makes this thread's TLS draw from `seed`.
pub(crate) fn seed_this_thread(seed: Seed) {
    STREAM.set(Some(seed.stream("tls")));
}

fn draw(buffer: &mut [u8]) -> Result<(), GetRandomFailed> {
    STREAM.with_borrow_mut(|stream| stream.as_mut().map(|rng| rng.fill(buffer))).ok_or(GetRandomFailed)
}

/// The provider that every simulated peer uses: the ciphers and signatures of production, X25519 with drawn keys.
pub fn provider() -> Arc<CryptoProvider> {
    let production = vortex_p2p::transport::tls::provider();
    Arc::new(CryptoProvider { secure_random: &Drawn, kx_groups: vec![&DrawnX25519], ..production })
}

/// Notes the secrets of every connection, where notes are taken.
pub fn key_log() -> Arc<dyn KeyLog> {
    Arc::new(Noted)
}

#[derive(Debug)]
struct Noted;

impl KeyLog for Noted {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        notes::secret(label, client_random, secret);
    }
}

#[derive(Debug)]
struct Drawn;

impl SecureRandom for Drawn {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), GetRandomFailed> {
        draw(buffer)
    }
}

/// ring's own X25519 takes its key from the kernel and can't be told otherwise.
#[derive(Debug)]
struct DrawnX25519;

impl SupportedKxGroup for DrawnX25519 {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let mut bytes = [0; 32];
        draw(&mut bytes)?;
        let secret = StaticSecret::from(bytes);
        let public = PublicKey::from(&secret);
        Ok(Box::new(Exchange { secret, public }))
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

struct Exchange {
    secret: StaticSecret,
    public: PublicKey,
}

impl ActiveKeyExchange for Exchange {
    fn complete(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, Error> {
        let peer: [u8; 32] = peer.try_into().map_err(|_| Error::from(PeerMisbehaved::InvalidKeyShare))?;
        let shared = self.secret.diffie_hellman(&PublicKey::from(peer));
        if !shared.was_contributory() {
            return Err(PeerMisbehaved::InvalidKeyShare.into());
        }
        Ok(SharedSecret::from(shared.as_bytes().as_slice()))
    }

    fn pub_key(&self) -> &[u8] {
        self.public.as_bytes()
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

/// The authority of every simulated peer. Made once, so that its bytes are the same in every run; Ed25519, because
/// its signatures need no randomness. Valid from 2020 to 2100: madsim's clock starts in 2022.
pub fn authority() -> CertificateDer<'static> {
    CertificateDer::from(include_bytes!("identity/ca.der").as_slice())
}

/// The certificate of every simulated peer, signed by [`authority`], for `d7y`, `vortex.test` and `localhost`.
pub fn certificate() -> CertificateDer<'static> {
    CertificateDer::from(include_bytes!("identity/leaf.der").as_slice())
}

/// The key of [`certificate`]. It protects nothing: it is published here.
pub fn key() -> PrivateKeyDer<'static> {
    PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(include_bytes!("identity/leaf.key.der").as_slice()))
}
