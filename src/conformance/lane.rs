//! Two directions of bytes: a TCP connection, or a stream of a QUIC connection. Nothing here knows the protocol.

use super::Transport;
use crate::runtime::SharedRuntime;
use crate::transport::ByteStream;
use bytes::{Bytes, BytesMut};
use quinn::{ReadError, VarInt};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Bytes that are read at a time.
const READ: usize = 64 << 10;

/// What arrives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    Bytes(Bytes),
    /// The peer finished its direction in order.
    Fin,
    /// The stream was reset with this code (QUIC).
    Reset(u64),
    /// The connection is gone; the application error code, where the peer sent one.
    Lost(Option<u64>, String),
    /// Nothing, for as long as was waited.
    Silence,
}

impl std::fmt::Display for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "{} bytes ({})", bytes.len(), hex(bytes)),
            Self::Fin => f.write_str("the end in order"),
            Self::Reset(code) => write!(f, "RESET_STREAM with code {code}"),
            Self::Lost(_, why) => write!(f, "the end of the connection ({why})"),
            Self::Silence => f.write_str("nothing"),
        }
    }
}

/// The first bytes in hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    let shown: String = bytes.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    if bytes.len() > 16 { shown + "…" } else { shown }
}

/// A TCP connection or a QUIC stream.
pub(super) enum Lane {
    Tcp(Box<dyn ByteStream>),
    Quic { send: quinn::SendStream, receive: quinn::RecvStream },
}

impl Lane {
    pub(super) fn transport(&self) -> Transport {
        match self {
            Self::Tcp(_) => Transport::Tcp,
            Self::Quic { .. } => Transport::Quic,
        }
    }

    /// Sends; whether everything was taken within `within`. A peer that has stopped listening is none of this
    /// function's business: what it sends tells.
    pub(super) async fn send(&mut self, runtime: &SharedRuntime, bytes: &[u8], within: Duration) -> bool {
        let sent = async {
            match self {
                Self::Tcp(stream) => stream.write_all(bytes).await.is_ok() && stream.flush().await.is_ok(),
                Self::Quic { send, .. } => send.write_all(bytes).await.is_ok(),
            }
        };
        runtime.timeout(within, sent).await.unwrap_or(false)
    }

    /// Ends the direction to the peer in order. It may have ended already.
    pub(super) async fn finish(&mut self) {
        match self {
            Self::Tcp(stream) => drop(stream.shutdown().await),
            Self::Quic { send, .. } => drop(send.finish()),
        }
    }

    /// Breaks off the direction to the peer (QUIC only).
    pub(super) fn reset(&mut self, code: u32) {
        if let Self::Quic { send, .. } = self {
            // It fails where the direction has ended already.
            let _ = send.reset(VarInt::from_u32(code));
        }
    }

    /// Asks the peer to stop sending (QUIC only).
    pub(super) fn stop(&mut self, code: u32) {
        if let Self::Quic { receive, .. } = self {
            let _ = receive.stop(VarInt::from_u32(code));
        }
    }

    /// The code of a STOP_SENDING that arrives within `within`.
    pub(super) async fn stopped(&mut self, runtime: &SharedRuntime, within: Duration) -> Option<u64> {
        let Self::Quic { send, .. } = self else { return None };
        let stopped = runtime.timeout(within, send.stopped()).await;
        stopped.ok().and_then(Result::ok).flatten().map(VarInt::into_inner)
    }

    /// What arrives within `within`.
    pub(super) async fn event(&mut self, runtime: &SharedRuntime, within: Duration) -> Event {
        let event = async {
            match self {
                Self::Tcp(stream) => {
                    let mut buffer = BytesMut::with_capacity(READ);
                    match stream.read_buf(&mut buffer).await {
                        Ok(0) => Event::Fin,
                        Ok(_) => Event::Bytes(buffer.freeze()),
                        Err(error) => Event::Lost(None, error.to_string()),
                    }
                }
                Self::Quic { receive, .. } => match receive.read_chunk(READ, true).await {
                    Ok(Some(chunk)) => Event::Bytes(chunk.bytes),
                    Ok(None) => Event::Fin,
                    Err(ReadError::Reset(code)) => Event::Reset(code.into_inner()),
                    Err(ReadError::ConnectionLost(error)) => lost(&error),
                    Err(error) => Event::Lost(None, error.to_string()),
                },
            }
        };
        runtime.timeout(within, event).await.unwrap_or(Event::Silence)
    }
}

/// The end of a QUIC connection.
pub(super) fn lost(error: &quinn::ConnectionError) -> Event {
    let code = match error {
        quinn::ConnectionError::ApplicationClosed(close) => Some(close.error_code.into_inner()),
        _ => None,
    };
    Event::Lost(code, error.to_string())
}
