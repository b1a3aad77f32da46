//! `vortex serve` as a service, by process: configuration, figures, signals, what it writes and what it does not.

mod configured;
#[cfg(feature = "metrics")]
mod figures;
mod qlog;
mod reload;
mod secrets;

use std::path::Path;
use vortex_p2p::runtime::TokioRuntime;
use vortex_p2p::transport::tls::{Crypto, Fingerprint, Identity};

/// Makes a certificate with its key and writes both to `directory`; its fingerprint.
fn write_identity(directory: &Path) -> Fingerprint {
    let crypto = Crypto::new(std::sync::Arc::new(TokioRuntime));
    let (identity, pem) = Identity::self_signed_pem(&crypto).unwrap();
    std::fs::write(directory.join("cert.pem"), pem.certificate).unwrap();
    std::fs::write(directory.join("key.pem"), pem.key).unwrap();
    identity.fingerprint().unwrap()
}

fn path(directory: &tempfile::TempDir, name: &str) -> String {
    directory.path().join(name).to_str().unwrap().to_owned()
}
