//! The transports over real loopback sockets.

mod handshakes;
mod pki;
mod quic;
mod tcp;
