//! One request to one peer.
//!
//! `QuicClient` is a QUIC connection, [`TcpClient`] a TCP connection, `GrpcClient` one of gRPC. Each turns an [`Ask`]
//! into an [`Answer`], which hands out the content while it streams and says at its end whether it was what was asked
//! for. What is pooled, retried elsewhere and put together to files is for [`crate::downloader`].

mod answer;
mod error;
mod gathering;
#[cfg(feature = "grpc")]
mod grpc;
#[cfg(feature = "quic")]
mod quic;
mod streamed;
mod tcp;

pub use crate::session::{Ask, ExtensionReply, Failure, Piece, Received, Rejection};
pub use answer::Answer;
pub(crate) use answer::{Progress, Source};
pub use error::{RequestError, Waited};
#[cfg(feature = "grpc")]
pub use grpc::{GrpcClient, GrpcResponse};
#[cfg(feature = "quic")]
pub use quic::QuicClient;
pub use tcp::{GiveBack, TcpClient};

/// A packet id. Which one is of no account; deployed peers draw theirs, too.
fn random_id(runtime: &crate::runtime::SharedRuntime) -> u8 {
    let mut id = [0];
    runtime.fill_random(&mut id);
    let [id] = id;
    id
}
