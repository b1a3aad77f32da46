//! Pieces over gRPC, as Dragonfly's peers exchanged them before Vortex: `dfdaemon.v2.DfdaemonUpload` (the .proto files
//! are in `spec/grpc`). One unary call fetches one piece, and one message holds all of it.
//!
//! Client and server sit directly on HTTP/2 (`h2`), the protocol below every gRPC library, rather than on tonic's channel
//! and server. These take their sockets, tasks and timers from tokio; here they come from [`crate::runtime`] and
//! [`crate::transport`], so that limits, deadlines and the shutdown are those of the other transports. And they hold a
//! whole message in memory, twice while it is encoded; here a server sends a message while it reads the piece. What
//! remains of gRPC is five bytes before a message and a status behind it. tonic is the counterpart in the tests.
//!
//! `h2` reads the clock by itself to forget streams that were reset, so a simulation over it isn't deterministic to the
//! last bit.

mod frame;
mod messages;
mod status;

pub(crate) use frame::{MessageReader, encode, response_head};
pub(crate) use messages::{Piece, PieceRequest, PieceResponse, Time};
pub(crate) use status::{Code, Status};

use crate::wire::PieceKind;
use http::{HeaderMap, HeaderValue, header};

/// Bytes of a response beside the content: as many as Vortex allows for metadata.
pub(crate) const MAX_HEAD_LEN: u32 = crate::wire::limits::MAX_VALUE_LEN;

/// Bytes of the largest request. The longest field is the host id, which deployed peers keep under 200 bytes.
pub(crate) const MAX_REQUEST_LEN: u32 = 4096;

/// Bytes of headers that are accepted with a request or a response; a deployed peer sends a few hundred.
pub(crate) const MAX_HEADERS_LEN: u32 = 16 << 10;

/// The media type of gRPC; `+proto` may follow.
pub(crate) const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/grpc");

/// The path of the method that hands out pieces of `kind`.
pub(crate) const fn path(kind: PieceKind) -> &'static str {
    match kind {
        PieceKind::Piece => "/dfdaemon.v2.DfdaemonUpload/DownloadPiece",
        PieceKind::Persistent => "/dfdaemon.v2.DfdaemonUpload/DownloadPersistentPiece",
        PieceKind::PersistentCache => "/dfdaemon.v2.DfdaemonUpload/DownloadPersistentCachePiece",
        PieceKind::Cache => "/dfdaemon.v2.DfdaemonUpload/DownloadCachePiece",
    }
}

/// The kind whose pieces the method at `path` hands out.
pub(crate) fn kind(requested: &str) -> Option<PieceKind> {
    PieceKind::ALL.into_iter().find(|kind| path(*kind) == requested)
}

/// Whether `headers` announce messages of gRPC.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    content_type.is_some_and(|value| value.starts_with(CONTENT_TYPE.as_bytes()))
}
