//! A request of an extension, as its client sees it.
//!
//! Such a request is alone on its stream, or on its TCP connection, so its answer is all that comes until the end.

use super::{Failure, Rejection};
use crate::wire::extension::{
    Availability, Capabilities, Description, Extension, ExtensionError, ExtensionRequest, MAX_RANGE_LEN,
    RangeHead,
};
use crate::wire::{Digest, ErrorCode, Message, Packet, limits};
use bytes::Bytes;

/// The answer to a request of an extension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExtensionReply {
    /// Which extensions the server knows.
    Capabilities(Capabilities),
    /// A part of a piece, verified against the digest that came with it.
    Range(RangeHead, Bytes),
    /// What the task is like, by the server's word.
    Description(Description),
    /// Which pieces the server holds, by its word.
    Availability(Availability),
}

/// Bytes of the longest answer to `request`, its content included: no more have to be read.
#[must_use]
pub fn longest_reply(request: &ExtensionRequest) -> usize {
    let content = match request {
        ExtensionRequest::Range { length, .. } => (*length).min(MAX_RANGE_LEN) as usize,
        _ => 0,
    };
    limits::MAX_PACKET_LEN + content
}

/// Reads the whole answer to `request`: everything that came until the end of the stream or connection, or before it was
/// reset. `None`: the server does not know the extension.
///
/// # Errors
/// [`Failure`]: the server knows the extension, and refused the request or answered with something unacceptable.
pub fn read_reply(request: &ExtensionRequest, bytes: &Bytes) -> Result<Option<ExtensionReply>, Failure> {
    //= VTX-EXT-005
    if bytes.is_empty() {
        return Ok(None);
    }
    let (packet, content) = Packet::decode(bytes).map_err(Rejection::Malformed)?;
    let value = match packet.message {
        Message::Reserved(tag, value) if tag.get() == request.extension().answer_tag() => value,
        Message::Error(error) if error.code == ErrorCode::InvalidArgument => return Ok(None),
        Message::Error(error) => {
            return Err(Failure::Refused { code: error.code, message: error.message.as_str().to_owned() });
        }
        Message::Close => return Err(Failure::GoingAway),
        other => return Err(Rejection::NoAnswer(other.tag()).into()),
    };
    let malformed = |error: ExtensionError| Rejection::Extension(error);
    let reply = match request.extension() {
        Extension::Capabilities => {
            ExtensionReply::Capabilities(Capabilities::decode(value).map_err(malformed)?)
        }
        Extension::Description => ExtensionReply::Description(Description::decode(value).map_err(malformed)?),
        Extension::Availability => {
            ExtensionReply::Availability(Availability::decode(value).map_err(malformed)?)
        }
        Extension::Range => {
            let ExtensionRequest::Range { start, length, .. } = *request else { return Ok(None) };
            let head = RangeHead::decode(value, start, length).map_err(malformed)?;
            let expected = head.length as usize;
            if content.len() > expected {
                return Err(Rejection::Trailing.into());
            }
            if content.len() < expected {
                return Err(Rejection::Malformed(crate::wire::DecodeError::Truncated {
                    have: content.len(),
                    need: expected,
                })
                .into());
            }
            //= VTX-EXT-022
            if Digest::of(head.digest.algorithm(), content) != head.digest {
                return Err(Rejection::Mismatch.into());
            }
            return Ok(Some(ExtensionReply::Range(head, bytes.slice_ref(content))));
        }
    };
    if content.is_empty() { Ok(Some(reply)) } else { Err(Rejection::Trailing.into()) }
}
