//! `dfdaemon.yaml`, as Dragonfly's users know it.
//!
//! Two forms are read, also mixed in one file: the deployed one (`storage.server.quicPort`, camelCase) and the one of the
//! QUIC proposal (`storage.server.protocol`, `storage.server.quic.{port, buffer_size, idle_timeout, max_connections}`).
//! What is not written has the deployed default. A daemon's other sections (scheduler, proxy, …) are accepted and listed
//! as [`Unused`]; a key that nobody knows is a [`Problem`] with its place and the key that was probably meant.
//!
//! ```
//! let checked = vortex_p2p::config::check("storage:\n  server:\n    quicPrt: 4007\n");
//! assert_eq!(
//!     checked.problems[0].to_string(),
//!     "3:5: storage.server.quicPrt: unknown key; did you mean `quicPort`?"
//! );
//! ```

mod dfdaemon;
mod problem;
mod reader;
mod value;
mod yaml;

pub use problem::{Position, Problem, ProblemKind};
pub use value::{ByteSize, NotADuration, NotASize, Percent, parse_duration};

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// The settings of a peer, complete: what the file does not say has its default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Config {
    /// `storage`: the pieces, and the peer-to-peer listeners for them.
    pub storage: Storage,
    /// `download`: how pieces are fetched.
    pub download: Download,
    /// `upload`: how pieces are given, and the gRPC listener.
    pub upload: Upload,
    /// `metrics`: the Prometheus endpoint.
    pub metrics: Endpoint<4002>,
    /// `gc`: when tasks are thrown away.
    pub gc: Gc,
}

/// `storage`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Storage {
    /// `storage.server`.
    pub server: StorageServer,
    /// `storage.dir`: where pieces and their index are kept.
    pub dir: PathBuf,
    /// `storage.keep`: whether they outlive the process. A deployed daemon takes a key that is not there for false; here
    /// pieces go only where the file says so.
    pub keep: Option<bool>,
}

/// `storage.server`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageServer {
    /// `storage.server.ip`: the address both listeners bind. Without it every IPv4 address, or with
    /// `network.enableIPv6` every IPv6 address.
    pub ip: IpAddr,
    /// `storage.server.tcpPort`.
    pub tcp_port: u16,
    /// `storage.server.quicPort` and `storage.server.quic`.
    pub quic: QuicServer,
}

/// `storage.server.quic`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuicServer {
    /// `storage.server.quic.port`, or `storage.server.quicPort`.
    pub port: u16,
    /// `storage.server.quic.buffer_size`: how much of one stream may be in flight unread.
    pub buffer_size: ByteSize,
    /// `storage.server.quic.idle_timeout`: a connection silent for so long is closed.
    pub idle_timeout: Duration,
    /// `storage.server.quic.max_connections`: connections at a time; the next one is refused.
    pub max_connections: NonZeroU32,
}

/// `download`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Download {
    /// `download.protocol`, or `storage.server.protocol`: what peers use to fetch pieces.
    pub protocol: Protocol,
    /// `download.pieceTimeout`: a piece not whole by then is given up.
    pub piece_timeout: Duration,
    /// `download.concurrentPieceCount`: pieces of one task fetched at a time.
    pub concurrent_piece_count: NonZeroU32,
    /// `download.bandwidthLimit`, bytes a second.
    pub bandwidth_limit: ByteSize,
}

/// `upload`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// `upload.bandwidthLimit`, bytes a second.
    pub bandwidth_limit: ByteSize,
    /// `upload.server.{ip, port}`: the gRPC listener.
    pub server: Endpoint<4000>,
    /// `upload.server.requestRateLimit`, requests a second.
    pub request_rate_limit: NonZeroU32,
    /// `upload.server.{caCert, cert, key}`: how this peer proves itself to those who fetch from it, and whom it lets in.
    pub server_tls: Option<TlsFiles>,
    /// `upload.client.{caCert, cert, key}`: how this peer proves itself to those it fetches from, and whom it believes.
    pub client_tls: Option<TlsFiles>,
}

/// Where a server listens; `PORT` is the default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint<const PORT: u16> {
    /// The address it binds.
    pub ip: IpAddr,
    /// The port; 0 lets the kernel choose.
    pub port: u16,
}

/// One side's identity, and the authority that vouches for the other side. Paths of PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The authority's certificate.
    pub ca_cert: PathBuf,
    /// The own certificate, with its chain.
    pub cert: PathBuf,
    /// The own private key.
    pub key: PathBuf,
}

/// `gc`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gc {
    /// `gc.interval`: how often it is looked whether something has to go.
    pub interval: Duration,
    /// `gc.policy.taskTTL`: a task that was not read or written for so long goes.
    pub task_ttl: Duration,
    /// `gc.policy.diskHighThresholdPercent`: when more of the disk is used, tasks go, …
    pub disk_high: Percent,
    /// `gc.policy.diskLowThresholdPercent`: … until no more than this is.
    pub disk_low: Percent,
}

/// How pieces travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Whatever works best with a peer.
    Auto,
    /// Vortex over QUIC.
    Quic,
    /// Vortex over TCP.
    Tcp,
    /// `dfdaemon.v2` over gRPC.
    Grpc,
}

/// The text names no protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected auto, quic, tcp or grpc")]
pub struct UnknownProtocol;

impl Protocol {
    /// Every protocol, with its name.
    pub const ALL: [(Self, &str); 4] =
        [(Self::Auto, "auto"), (Self::Quic, "quic"), (Self::Tcp, "tcp"), (Self::Grpc, "grpc")];
}

impl FromStr for Protocol {
    type Err = UnknownProtocol;
    fn from_str(text: &str) -> Result<Self, UnknownProtocol> {
        Self::ALL.iter().find(|(_, name)| *name == text).map(|(protocol, _)| *protocol).ok_or(UnknownProtocol)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Quic => "quic",
            Self::Tcp => "tcp",
            Self::Grpc => "grpc",
        })
    }
}

impl Default for Storage {
    fn default() -> Self {
        Self { server: StorageServer::default(), dir: "/var/lib/dragonfly".into(), keep: None }
    }
}

impl Default for Gc {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(900),
            task_ttl: Duration::from_secs(720 * 3600),
            disk_high: Percent::new(80),
            disk_low: Percent::new(60),
        }
    }
}

impl Default for StorageServer {
    fn default() -> Self {
        Self { ip: Ipv4Addr::UNSPECIFIED.into(), tcp_port: 4005, quic: QuicServer::default() }
    }
}

impl Default for QuicServer {
    fn default() -> Self {
        Self {
            port: 4006,
            buffer_size: ByteSize::mib(16),
            idle_timeout: Duration::from_secs(30),
            max_connections: NonZeroU32::MIN.saturating_add(999),
        }
    }
}

impl Default for Download {
    fn default() -> Self {
        Self {
            protocol: Protocol::Tcp,
            piece_timeout: Duration::from_secs(360),
            concurrent_piece_count: NonZeroU32::MIN.saturating_add(7),
            bandwidth_limit: ByteSize::gb(50),
        }
    }
}

impl Default for Upload {
    fn default() -> Self {
        Self {
            bandwidth_limit: ByteSize::gb(50),
            server: Endpoint::default(),
            request_rate_limit: NonZeroU32::MIN.saturating_add(3999),
            server_tls: None,
            client_tls: None,
        }
    }
}

impl<const PORT: u16> Default for Endpoint<PORT> {
    fn default() -> Self {
        Self { ip: Ipv4Addr::UNSPECIFIED.into(), port: PORT }
    }
}

/// A key that a daemon of Dragonfly uses and a Vortex peer does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unused {
    /// Where it stands.
    pub at: Position,
    /// The key with the sections it stands in.
    pub key: String,
}

/// Everything that is to say of a file.
#[derive(Debug, Clone)]
pub struct Checked {
    /// The settings; where a value is wrong, the default.
    pub config: Config,
    /// What is wrong, in the order of the file.
    pub problems: Vec<Problem>,
    /// What is known but has no effect here, in the order of the file.
    pub unused: Vec<Unused>,
}

/// Why a file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It could not be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Its content is wrong; at least one problem is fatal.
    #[error("{}", Listed(path, problems))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problems: Vec<Problem>,
    },
}

struct Listed<'a>(&'a Path, &'a [Problem]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.1.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{}:{problem}", self.0.display())?;
        }
        Ok(())
    }
}

/// Reads `text` and says everything that is to say of it.
#[must_use]
pub fn check(text: &str) -> Checked {
    dfdaemon::check(text)
}

impl Config {
    /// Reads the file at `path`. Unknown keys do not stop it; they are among the returned problems.
    ///
    /// # Errors
    /// [`ConfigError`] when the file can't be read, or a value in it is wrong.
    pub fn load(path: &Path) -> Result<Checked, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let checked = check(&text);
        if checked.problems.iter().any(Problem::is_fatal) {
            return Err(ConfigError::Invalid { path: path.to_owned(), problems: checked.problems });
        }
        Ok(checked)
    }
}
