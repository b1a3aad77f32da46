//! Integration tests: one binary.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test that fails says where"
)]

#[cfg(feature = "cli")]
mod arrival;
#[cfg(feature = "cli")]
mod bench;
mod book;
#[cfg(all(feature = "quic", feature = "sendfile", feature = "disk", target_os = "linux"))]
mod bursts;
#[cfg(feature = "cli")]
mod cli;
#[cfg(all(feature = "quic", feature = "tcp"))]
mod clock;
mod committed;
#[cfg(feature = "config")]
mod config;
#[cfg(all(feature = "conformance", feature = "tcp"))]
mod conformance;
#[cfg(all(feature = "quic", feature = "tcp"))]
mod cost;
#[cfg(feature = "cli")]
mod decode;
mod dependencies;
#[cfg(all(feature = "quic", feature = "tcp"))]
mod downloader;
mod exchange;
#[cfg(feature = "cli")]
mod exits;
#[cfg(all(feature = "quic", feature = "tcp"))]
mod extensions;
#[cfg(all(feature = "quic", feature = "tcp"))]
mod firewall;
#[cfg(all(feature = "grpc", feature = "tcp"))]
mod grpc;
#[cfg(all(feature = "cli", feature = "grpc", target_os = "linux"))]
mod hostile;
#[cfg(all(feature = "cli", target_os = "linux", target_arch = "x86_64"))]
mod kill;
#[cfg(all(feature = "quic", feature = "tcp"))]
mod limits;
mod manual;
#[cfg(all(feature = "quic", feature = "tcp"))]
mod memory;
#[cfg(feature = "cli")]
mod names;
#[cfg(feature = "cli")]
mod operations;
#[cfg(feature = "cli")]
mod pcap;
#[cfg(all(feature = "quic", feature = "tcp"))]
mod peers;
#[cfg(all(feature = "quic", feature = "tcp"))]
mod rates;
mod session;
mod spec;
#[cfg(feature = "peer")]
mod store;
mod traceability;
#[cfg(all(feature = "quic", feature = "tcp"))]
mod transfer;
#[cfg(all(feature = "quic", feature = "tcp"))]
mod transport;
#[cfg(all(feature = "quic", feature = "tcp"))]
mod trickle;
mod vectors;
mod wire;
