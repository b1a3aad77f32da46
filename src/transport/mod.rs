//! What a session needs of a network.

#[cfg(all(feature = "tcp", target_os = "linux"))]
mod low_water;
mod net;
#[cfg(feature = "quic")]
pub mod quic;
#[cfg(all(feature = "sendfile", target_os = "linux"))]
mod sendfile;
#[cfg(feature = "tls")]
pub mod tls;
#[cfg(feature = "tcp")]
mod tokio_net;

pub use net::{ByteStream, Listener, Network};
#[cfg(all(feature = "sendfile", target_os = "linux"))]
pub use sendfile::{Burst, FileSend, send_file};
#[cfg(feature = "tcp")]
pub use tokio_net::{SocketSettings, TokioNetwork};
