//! Requests out of the bytes that a client sends.

use crate::wire::{
    Bounded, DecodeError, Decoder, Download, ErrorCode, ErrorMessage, Message, ReservedTag, limits,
};
use bytes::{Bytes, BytesMut};

/// What a client sent, as far as a server is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// A request for a piece.
    Request {
        /// Its packet id, which the answer repeats.
        id: u8,
        /// What it asks for.
        download: Download,
    },
    /// A packet with a reserved tag: an extension's request, or something to refuse by [`Refusal::no_request`].
    Extension {
        /// Its packet id.
        id: u8,
        /// Its tag.
        tag: ReservedTag,
        /// Its value, at most 16,384 bytes.
        value: Bytes,
    },
    /// No more requests on this connection.
    Close,
    /// What arrived can't be answered but by an error.
    Refuse(Refusal),
}

/// An Error packet that is due, and whether packets can follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Packet id of what is refused; 0 where it had none.
    pub id: u8,
    /// Why.
    pub code: ErrorCode,
    /// Why, in words for a person, at most 1,024 bytes are sent.
    pub message: String,
    /// Whether the next packet can't be found: on TCP the connection ends after the Error packet.
    pub ends: bool,
}

impl Refusal {
    /// An error that answers one request and leaves the connection as it is.
    #[must_use]
    pub fn new(id: u8, code: ErrorCode, message: impl Into<String>) -> Self {
        Self { id, code, message: message.into(), ends: false }
    }

    /// The answer to a packet that is no request, or whose extension is not known here.
    #[must_use]
    pub fn no_request(id: u8, tag: crate::wire::Tag) -> Self {
        //= VTX-ERR-008
        Self::new(id, ErrorCode::InvalidArgument, format!("a {tag} packet is not a request"))
    }

    /// The answer to a request that did not complete in time.
    #[must_use]
    pub fn late(id: u8) -> Self {
        //= VTX-ERR-009
        let message = "the request was not complete by its deadline";
        Self { ends: true, ..Self::new(id, ErrorCode::InvalidArgument, message) }
    }

    /// The Error packet.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        //= VTX-ERR-003
        //= VTX-ERR-004
        let cut = Bounded::<{ limits::MAX_SENT_ERROR_MESSAGE_LEN }>::cut(&self.message);
        let mut packet = BytesMut::with_capacity(limits::HEADER_LEN + 1 + cut.as_str().len());
        ErrorMessage { code: self.code, message: Bounded::cut(cut.as_str()) }.encode(self.id, &mut packet);
        packet.freeze()
    }
}

/// Reads requests at a server: one on a QUIC stream, one after another on a TCP connection.
#[derive(Debug, Default)]
pub struct RequestReader {
    decoder: Decoder,
}

impl RequestReader {
    /// A reader at the begin of a stream or connection.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes from the front of `input` up to the end of one packet and says what it is; `None` when more are
    /// needed. A refused packet's value is passed over by the calls that follow.
    pub fn receive(&mut self, input: &mut &[u8]) -> Option<Incoming> {
        match self.decoder.decode(input) {
            Ok(packet) => packet.map(|packet| {
                let id = packet.id;
                match packet.message {
                    Message::Download(download) => Incoming::Request { id, download },
                    Message::Close => Incoming::Close,
                    Message::Reserved(tag, value) => {
                        Incoming::Extension { id, tag, value: Bytes::copy_from_slice(value) }
                    }
                    Message::Content(..) | Message::Error(_) => {
                        Incoming::Refuse(Refusal::no_request(id, packet.message.tag()))
                    }
                }
            }),
            Err(error) => Some(Incoming::Refuse(self.refuse(error))),
        }
    }

    /// The client has ended its direction here; `None` between two packets.
    pub fn finish(&mut self) -> Option<Refusal> {
        //= VTX-TCP-009
        //= VTX-QUC-022
        self.decoder.finish().err().map(|error| self.refuse(error))
    }

    /// Whether no part of a packet is waiting for its rest: on TCP the idle timeout runs, otherwise the request deadline.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.decoder.is_idle()
    }

    /// Whether the rest of a packet that was refused before is still to come: no second Error packet is due for it.
    #[must_use]
    pub fn is_passing_over(&self) -> bool {
        !self.decoder.is_idle() && self.decoder.finish().is_ok()
    }

    /// The id of the packet read last, for the answer to a request that stays incomplete.
    #[must_use]
    pub fn packet_id(&self) -> u8 {
        self.decoder.packet_id()
    }

    fn refuse(&self, error: DecodeError) -> Refusal {
        //= VTX-ERR-007
        let ends = !error.is_recoverable();
        Refusal {
            ends,
            ..Refusal::new(self.decoder.packet_id(), ErrorCode::InvalidArgument, error.to_string())
        }
    }
}
