//! Downloaders, and many peers for one file, over loopback sockets.

mod auto;
mod pooled;
mod transfer;
pub(crate) mod world;
