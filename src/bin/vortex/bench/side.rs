//! What is compared with what.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::PathBuf;

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
    /// Pieces over gRPC by tonic with TLS and large windows, each in one message; a program of its own serves and fetches
    Tonic,
    /// The same by tonic, but each piece as a stream of messages
    TonicStream,
    /// Streams of quinn with the settings of Vortex, and nothing on top: no packets, no digests
    RawQuic,
    /// Dragonfly's own peers, by its library, over QUIC; a program of its own serves and fetches
    DragonflyQuic,
    /// Dragonfly's own peers over TCP
    DragonflyTcp,
    /// Streams of quinn with the settings of deployed Dragonfly, and crc32 at the client
    QuinnDeployed,
    /// Streams of quinn as it comes
    QuinnDefault,
    /// A loop of sendfile, and one of recv that computes crc32
    RawTcp,
    /// curl, from a static HTTP server that uses sendfile: one file as a whole, not verified
    Curl,
    /// iperf3, whose bytes come from memory and go nowhere in any case, over one connection
    Iperf3,
}

impl Side {
    /// The side that this one is there to be compared with.
    pub(crate) fn compared(self) -> Option<Self> {
        match self {
            Self::Quic => None,
            Self::Tcp
            | Self::Grpc
            | Self::Tonic
            | Self::TonicStream
            | Self::RawQuic
            | Self::DragonflyQuic
            | Self::QuinnDeployed
            | Self::QuinnDefault => Some(Self::Quic),
            Self::DragonflyTcp | Self::RawTcp | Self::Curl | Self::Iperf3 => Some(Self::Tcp),
        }
    }

    /// Its name, as on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Tcp => "tcp",
            Self::Grpc => "grpc",
            Self::Tonic => "tonic",
            Self::TonicStream => "tonic-stream",
            Self::RawQuic => "raw-quic",
            Self::DragonflyQuic => "dragonfly-quic",
            Self::DragonflyTcp => "dragonfly-tcp",
            Self::QuinnDeployed => "quinn-deployed",
            Self::QuinnDefault => "quinn-default",
            Self::RawTcp => "raw-tcp",
            Self::Curl => "curl",
            Self::Iperf3 => "iperf3",
        }
    }

    /// The program that its workers run: this one, or one that was built beside it.
    pub(crate) fn program(self) -> io::Result<PathBuf> {
        let ours = std::env::current_exe()?;
        match self {
            Self::Tonic | Self::TonicStream => Ok(ours.with_file_name("examples").join("tonic-peer")),
            Self::DragonflyQuic | Self::DragonflyTcp => Ok(ours.with_file_name("deployed-peer")),
            _ => Ok(ours),
        }
    }

    /// Why it can't be measured here, if it can't.
    pub(crate) fn missing(self) -> Option<&'static str> {
        let built = self.program().is_ok_and(|program| program.exists());
        match self {
            Self::Tonic | Self::TonicStream if !built => Some(
                "cargo build --release --package vortex-grpc-tonic --example tonic-peer builds its program",
            ),
            Self::DragonflyQuic | Self::DragonflyTcp if !built => {
                Some("spec/deployed/build makes its program")
            }
            Self::Grpc if !cfg!(feature = "grpc") => Some("built without the feature grpc"),
            Self::RawTcp | Self::Curl | Self::Iperf3
                if !cfg!(all(feature = "sendfile", target_os = "linux")) =>
            {
                Some("built without the feature sendfile")
            }
            Self::Curl if !has("curl") => Some("curl is not installed"),
            Self::Iperf3 if !has("iperf3") => Some("iperf3 is not installed"),
            _ => None,
        }
    }
}

fn has(program: &str) -> bool {
    use std::process::{Command, Stdio};
    let status = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}
