//! TLS over any byte stream.
//!
//! A protected stream may hold written bytes back until it is flushed. Its end is authentic: where the peer's bytes stop
//! without a close_notify, reading fails with [`UnexpectedEof`](std::io::ErrorKind::UnexpectedEof).

use super::{ClientTls, ServerTls};
use crate::transport::ByteStream;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio_rustls::{TlsAcceptor, TlsConnector};

impl ByteStream for tokio_rustls::client::TlsStream<Box<dyn ByteStream>> {}
impl ByteStream for tokio_rustls::server::TlsStream<Box<dyn ByteStream>> {}

/// Protects `stream`, which leads to the server `peer`.
///
/// # Errors
/// The stream's own, and refusals: [`Refusal::from_io`](super::Refusal::from_io) reads them. A server that refuses this
/// client's certificate says so only after this has succeeded, on the first read.
pub async fn connect(
    tls: &ClientTls,
    peer: SocketAddr,
    stream: Box<dyn ByteStream>,
) -> io::Result<Box<dyn ByteStream>> {
    //= VTX-TCP-021
    let connector = TlsConnector::from(Arc::new(tls.for_peer(peer)));
    let stream = connector.connect(tls.name().clone(), stream).await?;
    let (_, connection) = stream.get_ref();
    if connection.handshake_kind() == Some(rustls::HandshakeKind::Resumed) {
        tls.verify_again(connection.peer_certificates().unwrap_or_default())
            .map_err(|refusal| io::Error::new(io::ErrorKind::InvalidData, refusal))?;
    }
    Ok(Box::new(stream))
}

/// Protects `stream`, which a client opened.
///
/// # Errors
/// The stream's own, and refusals: [`Refusal::from_io`](super::Refusal::from_io) reads them.
pub async fn accept(tls: &ServerTls, stream: Box<dyn ByteStream>) -> io::Result<Box<dyn ByteStream>> {
    //= VTX-TCP-021
    let stream = TlsAcceptor::from(tls.config().clone()).accept(stream).await?;
    Ok(Box::new(stream))
}
