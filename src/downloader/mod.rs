//! Pieces from peers, files from pieces.

mod peer;

pub use peer::{Peer, PeerError, PeerName, Protocol};
