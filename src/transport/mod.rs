//! What a session needs of a network.

mod net;
#[cfg(feature = "quic")]
pub mod quic;
#[cfg(feature = "tls")]
pub mod tls;
#[cfg(feature = "tcp")]
mod tokio_net;

pub use net::{ByteStream, Listener, Network};
#[cfg(feature = "tcp")]
pub use tokio_net::{SocketSettings, TokioNetwork};
