//! The transports over real loopback sockets.

mod pki;
mod tls_over_tcp;
