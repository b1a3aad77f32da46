//! Downloaders, and many peers for one file, over loopback sockets.

mod auto;
mod pooled;
#[cfg(feature = "disk")]
mod quarantine;
mod told;
mod transfer;
pub(crate) mod world;
