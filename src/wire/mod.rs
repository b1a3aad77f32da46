//! Bytes to packets, packets to bytes.
//!
//! ```text
//!  byte   0        1        2        3        4        5        6            6+Length
//!         +--------+--------+--------+--------+--------+--------+-----...----+
//!         |   id   |  tag   |              Length               |   value    |
//!         +--------+--------+--------+--------+--------+--------+-----...----+
//! ```
//!
//! One message per file, its layout on top. Nothing here does I/O, reads a clock or draws a random number. Decoding
//! borrows from what it was given; the only buffer is the one of [`Decoder`], which holds what has arrived of one
//! packet and never more than [`limits::MAX_PACKET_LEN`].
//!
//! The content bytes of a piece belong to no packet: they follow a Content packet on the same stream, as many as
//! [`Metadata::length`] says, and whoever drives a [`Decoder`] takes them out of the input itself.

mod annotate;
mod content;
mod decode_error;
mod decoder;
mod digest;
mod division;
mod error;
pub mod extension;
mod header;
pub mod limits;
mod packet;
mod request;
mod tag;
mod task_id;
mod text;

pub use annotate::{Annotated, Field, FieldValue, annotate};
pub use content::{Metadata, PieceLength, PieceTooLong, TrafficType};
pub use decode_error::DecodeError;
pub use decoder::Decoder;
pub use digest::{Algorithm, Digest, DigestClaim, DigestError, DigestText, Hasher};
pub use division::{Division, DivisionError, PieceSpan};
pub use error::{ErrorCode, ErrorMessage};
pub use header::Header;
pub use packet::{Message, Packet};
pub use request::Download;
pub use tag::{Lengths, PieceKind, ReservedTag, Tag, UnknownKind};
pub use task_id::{BadTaskId, TaskId};
pub use text::{Bounded, Escaped, TooLong};
