//! Vortex, Dragonfly's peer-to-peer protocol for moving large files in pieces.

pub mod wire;

#[cfg(feature = "peer")]
pub mod runtime;
#[cfg(feature = "peer")]
pub mod transport;
