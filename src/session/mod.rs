//! The protocol as state machines: bytes in, events out. No I/O, no clock, no randomness.
//!
//! [`ClientRequest`] is one request as its client sees it, [`RequestReader`] and [`Answer`] are the two halves of one as
//! its server sees it; the specification's state diagrams show both. Whoever drives them reads and writes the
//! transport, and arms the deadlines of [`Deadlines`] by the state that the machine is in.

mod answer;
mod client;
mod deadlines;
mod extension;
mod reader;

pub use answer::{Answer, AnswerStep, Corrupt};
pub use client::{Ask, ClientEvent, ClientRequest, Failure, Piece, Received, Rejection};
pub use deadlines::Deadlines;
pub use extension::{ExtensionReply, longest_reply, read_reply};
pub use reader::{Incoming, Refusal, RequestReader};
