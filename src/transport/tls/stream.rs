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
/// The stream's own, and refusals: [`Refusal::from_io`](super::Refusal::from_io) reads them, and [`is_not_tls`] knows a
/// server that speaks something else. A server that refuses this
/// client's certificate says so only after this has succeeded, on the first read.
pub async fn connect(
    tls: &ClientTls,
    peer: SocketAddr,
    stream: Box<dyn ByteStream>,
) -> io::Result<Box<dyn ByteStream>> {
    //= VTX-TCP-021
    Ok(Box::new(handshake(tls, tls.for_peer(peer), stream).await?))
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

/// The application protocol of gRPC, which is HTTP/2: unlike Vortex it has one, and its peers insist on it.
#[cfg(feature = "grpc")]
const HTTP2: &[u8] = b"h2";

/// As [`connect`], to a server that speaks HTTP/2.
///
/// # Errors
/// As [`connect`], and `InvalidData` where the server did not choose HTTP/2.
#[cfg(feature = "grpc")]
pub async fn connect_http2(
    tls: &ClientTls,
    peer: SocketAddr,
    stream: Box<dyn ByteStream>,
) -> io::Result<Box<dyn ByteStream>> {
    let mut config = tls.for_peer(peer);
    config.alpn_protocols = vec![HTTP2.to_vec()];
    let stream = handshake(tls, config, stream).await?;
    match stream.get_ref().1.alpn_protocol() {
        Some(HTTP2) => Ok(Box::new(stream)),
        _ => {
            Err(io::Error::new(io::ErrorKind::InvalidData, "expected a server that chooses HTTP/2 (ALPN h2)"))
        }
    }
}

/// As [`accept`], from a client that speaks HTTP/2. One that offers no application protocol at all is taken at its word.
///
/// # Errors
/// As [`accept`]; a client that offers other protocols only is refused.
#[cfg(feature = "grpc")]
pub async fn accept_http2(tls: &ServerTls, stream: Box<dyn ByteStream>) -> io::Result<Box<dyn ByteStream>> {
    let mut config = rustls::ServerConfig::clone(tls.config());
    config.alpn_protocols = vec![HTTP2.to_vec()];
    let stream = TlsAcceptor::from(Arc::new(config)).accept(stream).await?;
    Ok(Box::new(stream))
}

/// Whether `error` is that of a handshake with somebody who does not speak TLS: what came begins like no record of it.
#[must_use]
pub fn is_not_tls(error: &io::Error) -> bool {
    use rustls::{Error, InvalidMessage};
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    matches!(
        inner,
        Some(Error::InvalidMessage(
            InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion
        ))
    )
}

async fn handshake(
    tls: &ClientTls,
    config: rustls::ClientConfig,
    stream: Box<dyn ByteStream>,
) -> io::Result<tokio_rustls::client::TlsStream<Box<dyn ByteStream>>> {
    let stream = TlsConnector::from(Arc::new(config)).connect(tls.name().clone(), stream).await?;
    let (_, connection) = stream.get_ref();
    if connection.handshake_kind() == Some(rustls::HandshakeKind::Resumed) {
        tls.verify_again(connection.peer_certificates().unwrap_or_default())
            .map_err(|refusal| io::Error::new(io::ErrorKind::InvalidData, refusal))?;
    }
    Ok(stream)
}
