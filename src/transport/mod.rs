//! What a session needs of a network.

mod net;

pub use net::{ByteStream, Listener, Network};
