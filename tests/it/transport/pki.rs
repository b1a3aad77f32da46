//! Certificates for the tests, and a clock that stands where they need it.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    date_time_ymd,
};
use rustls::pki_types::PrivatePkcs8KeyDer;
use std::sync::Arc;
use std::time::Duration;
use vortex_p2p::runtime::{SharedRuntime, TokioRuntime};
use vortex_p2p::transport::tls::{Admission, Authorities, Crypto, Identity, ServerIdentity, ServerTls};

pub(super) const REQUEST: &[u8] = b"ping";
pub(super) const ANSWER: &[u8] = b"pong";

pub(super) fn runtime() -> SharedRuntime {
    Arc::new(TokioRuntime)
}

pub(super) fn crypto() -> Crypto {
    Crypto::new(runtime())
}

/// A certificate authority.
pub(super) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pub(super) authorities: Authorities,
}

/// When a certificate is valid.
#[derive(Clone, Copy)]
pub(super) enum Valid {
    Now,
    Before,
    Later,
}

impl Ca {
    pub(super) fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = parameters.self_signed(&key).unwrap();
        let authorities = Authorities::from_pem(certificate.pem().as_bytes()).unwrap();
        Self { issuer: Issuer::new(parameters, key), authorities }
    }

    pub(super) fn issue(&self, name: &str, valid: Valid) -> Identity {
        let (from, until) = match valid {
            Valid::Now => (2000, 4000),
            Valid::Before => (2000, 2001),
            Valid::Later => (3999, 4000),
        };
        self.sign(name, |parameters| {
            parameters.not_before = date_time_ymd(from, 1, 1);
            parameters.not_after = date_time_ymd(until, 1, 1);
        })
    }

    /// A certificate that expires so long after the Unix epoch.
    pub(super) fn issue_until(&self, name: &str, until: Duration) -> Identity {
        self.sign(name, |parameters| parameters.not_after = date_time_ymd(1970, 1, 1) + until)
    }

    fn sign(&self, name: &str, dates: impl FnOnce(&mut CertificateParams)) -> Identity {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new(vec![name.to_owned()]).unwrap();
        parameters.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        dates(&mut parameters);
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        Identity::from_der(&crypto(), vec![certificate.der().clone()], key.into()).unwrap()
    }
}

pub(super) fn server(identity: Identity, admission: &Admission) -> ServerTls {
    ServerTls::new(&crypto(), &ServerIdentity::new(identity), admission).unwrap()
}
