//! Downloaders, and many peers for one file, over loopback sockets.

mod pooled;
mod transfer;
mod world;
