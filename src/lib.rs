//! Vortex, Dragonfly's peer-to-peer protocol for moving large files in pieces.

mod canary;
#[cfg(feature = "config")]
pub mod config;
#[cfg(feature = "conformance")]
pub mod conformance;
#[cfg(feature = "grpc")]
mod grpc;
#[cfg(feature = "metrics")]
pub mod metrics;
#[cfg(feature = "pcap")]
pub mod pcap;
pub mod session;
pub mod wire;

#[cfg(feature = "peer")]
pub mod client;
#[cfg(feature = "peer")]
pub mod downloader;
#[cfg(feature = "peer")]
pub mod rate;
#[cfg(feature = "peer")]
pub mod runtime;
#[cfg(feature = "peer")]
pub mod server;
#[cfg(feature = "peer")]
pub mod store;
#[cfg(feature = "tls")]
pub mod ticket;
#[cfg(all(test, feature = "quic", feature = "tcp"))]
mod traced;
#[cfg(feature = "peer")]
pub mod transport;
#[cfg(feature = "peer")]
mod watch;
