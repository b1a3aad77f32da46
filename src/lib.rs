//! Vortex, Dragonfly's peer-to-peer protocol for moving large files in pieces.
pub mod wire;
