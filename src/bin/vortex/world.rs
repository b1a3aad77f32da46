//! What every command that talks to peers or disks needs: the runtime, the network, cryptography, identity.

use crate::exit::{Exit, Failure};
use clap::Args;
use std::fs;
use std::future::Future;
use std::io::LineWriter;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use vortex_p2p::runtime::{SharedRuntime, TokioRuntime};
use vortex_p2p::transport::quic::Qlog;
use vortex_p2p::transport::tls::{Admission, Authorities, Crypto, Identity};
use vortex_p2p::transport::{Network, SocketSettings, TokioNetwork};

/// Runs `work` on all cores.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime =
        runtime.map_err(|error| Failure::new(Exit::Other, format!("no threads to run on: {error}")))?;
    runtime.block_on(work)
}

/// The kernel's network and clock, and the cryptography on top.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) runtime: SharedRuntime,
    pub(crate) network: Arc<dyn Network>,
    pub(crate) crypto: Crypto,
    /// What notes QUIC connections, if anything.
    pub(crate) qlog: Option<Qlog>,
}

impl World {
    /// To be called within [`block_on`]. TLS secrets go to the file that `SSLKEYLOGFILE` names, for Wireshark, and what QUIC
    /// connections did to files in the folder that `QLOGDIR` names.
    pub(crate) fn new() -> Self {
        let runtime: SharedRuntime = Arc::new(TokioRuntime);
        let mut crypto = Crypto::new(runtime.clone());
        if std::env::var_os("SSLKEYLOGFILE").is_some() {
            tracing::warn!("TLS secrets are written to SSLKEYLOGFILE: whoever has it can read the traffic");
            crypto = crypto.with_key_log(Arc::new(rustls::KeyLogFile::new()));
        }
        let qlog = std::env::var_os("QLOGDIR").map(|folder| qlog(&runtime, folder.into()));
        Self { runtime, network: Arc::new(TokioNetwork::new(SocketSettings::default())), crypto, qlog }
    }
}

/// One file for each connection and side. Lines are written as they come: whoever kills the process keeps them.
fn qlog(runtime: &SharedRuntime, folder: PathBuf) -> Qlog {
    Qlog::new(runtime.now(), move |name| {
        let path = folder.join(format!("{name}.sqlog"));
        let file = fs::create_dir_all(&folder).and_then(|()| fs::File::create(&path));
        let file = file.inspect_err(|error| tracing::warn!(path = %path.display(), %error, "no qlog"));
        Some(Box::new(LineWriter::new(file.ok()?)))
    })
}

/// Who this peer is, and whom it trusts.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Identity")]
pub(crate) struct IdentityArguments {
    /// PEM file of the authorities that vouch for the other side
    #[arg(long, value_name = "FILE", env = "VORTEX_CA", conflicts_with = "insecure")]
    pub(crate) ca: Option<PathBuf>,
    /// PEM file of this side's certificate, with its chain
    #[arg(long, value_name = "FILE", env = "VORTEX_CERT", requires = "key", conflicts_with = "insecure")]
    pub(crate) cert: Option<PathBuf>,
    /// PEM file of this side's private key
    #[arg(long, value_name = "FILE", env = "VORTEX_KEY", requires = "cert")]
    pub(crate) key: Option<PathBuf>,
    /// Trust everyone and protect nothing, as deployed Dragonfly peers do
    #[arg(long, env = "VORTEX_INSECURE")]
    pub(crate) insecure: bool,
}

impl IdentityArguments {
    /// The certificate and key that were named.
    pub(crate) fn identity(&self, crypto: &Crypto) -> Result<Option<Identity>, Failure> {
        let (Some(cert), Some(key)) = (&self.cert, &self.key) else { return Ok(None) };
        let identity = Identity::from_pem(crypto, &read(cert)?, &read(key)?);
        identity.map(Some).map_err(|error| {
            Failure::new(Exit::Usage, format!("{} and {}: {error}", cert.display(), key.display()))
        })
    }

    /// The authorities that were named.
    pub(crate) fn authorities(&self) -> Result<Option<Authorities>, Failure> {
        let Some(ca) = &self.ca else { return Ok(None) };
        let authorities = Authorities::from_pem(&read(ca)?);
        authorities.map(Some).map_err(|error| Failure::new(Exit::Usage, format!("{}: {error}", ca.display())))
    }

    /// Which clients a server lets in.
    pub(crate) fn admission(&self) -> Result<Admission, Failure> {
        Ok(self.authorities()?.map_or(Admission::Anyone, Admission::Authorities))
    }

    /// Says aloud that nothing is verified.
    pub(crate) fn warn(&self) {
        //= VTX-SEC-010
        if self.insecure {
            tracing::warn!(
                "--insecure: no peer is verified, and TCP is not encrypted; anyone on the path can read and alter \
                 what is transferred"
            );
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(path).map_err(|error| Failure::file(path, &error))
}
