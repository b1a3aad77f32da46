//! What is compared with what.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// A way to move the content from one process to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Side {
    /// Vortex over QUIC
    Quic,
    /// Vortex over TCP, from file to socket within the kernel
    Tcp,
    /// Pieces over gRPC with TLS, each in one message, as peers did before Vortex
    Grpc,
    /// Streams of quinn with the settings of Vortex, and nothing on top: no packets, no digests
    RawQuic,
    /// Streams of quinn as it comes
    QuinnDefault,
    /// A loop of sendfile, and one of recv that computes crc32
    RawTcp,
    /// curl, from a static HTTP server that uses sendfile: one file as a whole, not verified
    Curl,
}

impl Side {
    /// The side that this one is there to be compared with.
    pub(crate) fn compared(self) -> Option<Self> {
        match self {
            Self::Quic => None,
            Self::Tcp | Self::Grpc | Self::RawQuic | Self::QuinnDefault => Some(Self::Quic),
            Self::RawTcp | Self::Curl => Some(Self::Tcp),
        }
    }

    /// Its name, as on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Tcp => "tcp",
            Self::Grpc => "grpc",
            Self::RawQuic => "raw-quic",
            Self::QuinnDefault => "quinn-default",
            Self::RawTcp => "raw-tcp",
            Self::Curl => "curl",
        }
    }

    /// Why it can't be measured here, if it can't.
    pub(crate) fn missing(self) -> Option<&'static str> {
        match self {
            Self::Grpc if !cfg!(feature = "grpc") => Some("built without the feature grpc"),
            Self::RawTcp | Self::Curl if !cfg!(all(feature = "sendfile", target_os = "linux")) => {
                Some("built without the feature sendfile")
            }
            Self::Curl if !has_curl() => Some("curl is not installed"),
            _ => None,
        }
    }
}

fn has_curl() -> bool {
    use std::process::{Command, Stdio};
    let status = Command::new("curl").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}
