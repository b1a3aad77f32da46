//! Header and value: one message.

use super::decode_error::Refused;
use super::{DecodeError, Download, ErrorMessage, Header, Metadata, PieceKind, Tag, limits};
use crate::wire::tag::ReservedTag;
use bytes::BufMut;

/// A packet, borrowed from the bytes that it was decoded from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Packet id.
    pub id: u8,
    /// What it says.
    pub message: Message<'a>,
}

/// What a packet says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message<'a> {
    /// A request for a piece.
    Download(Download),
    /// The metadata of a piece, whose content bytes follow the packet.
    Content(PieceKind, Metadata<'a>),
    /// Something that this version gives no meaning to, or an extension.
    Reserved(ReservedTag, &'a [u8]),
    /// No more requests on this connection.
    Close,
    /// A request failed.
    Error(ErrorMessage<'a>),
}

impl<'a> Packet<'a> {
    /// Decodes the packet at the front of `bytes`; returns it with the bytes that follow.
    ///
    /// # Errors
    /// [`DecodeError`]: the first check of the specification's decoding table that fails.
    #[inline]
    pub fn decode(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), DecodeError> {
        let (header, value, rest) = split(bytes)?;
        Ok((Self::of(header, value)?, rest))
    }

    /// Decodes bytes that hold exactly one packet.
    ///
    /// # Errors
    /// As [`Packet::decode`]; [`DecodeError::TrailingBytes`] when anything follows the packet.
    #[inline]
    pub fn decode_exact(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let (header, value, rest) = split(bytes)?;
        //= VTX-FRM-015
        if !rest.is_empty() {
            let trailing = DecodeError::TrailingBytes { count: rest.len() };
            return Err(reasoned(header.id, header.tag, value).err().unwrap_or(trailing));
        }
        Self::of(header, value)
    }

    /// The packet of this header, which was checked, and this value.
    ///
    /// # Errors
    /// The first check of the value that fails.
    // Not inlined: so it writes the packet to where its caller's caller wants it.
    #[inline(never)]
    pub(super) fn of(Header { id, tag, .. }: Header, value: &'a [u8]) -> Result<Self, DecodeError> {
        match Self::read(id, tag, value) {
            Ok(packet) => Ok(packet),
            Err(Refused) => reasoned(id, tag, value),
        }
    }

    /// As [`Packet::of`], with a reason or without.
    #[inline]
    fn read<E: From<DecodeError>>(id: u8, tag: Tag, value: &'a [u8]) -> Result<Self, E> {
        // Each arm makes the whole result. What they had in common would go from each of them, field by field, through
        // registers and stack to the place where they meet.
        match tag {
            Tag::Download(kind) => {
                Ok(Self { id, message: Message::Download(Download::decode(kind, value)?) })
            }
            Tag::Content(kind) => {
                Ok(Self { id, message: Message::Content(kind, Metadata::decode::<E>(value)?) })
            }
            //= VTX-TAG-002
            Tag::Reserved(tag) => Ok(Self { id, message: Message::Reserved(tag, value) }),
            Tag::Close => Ok(Self { id, message: Message::Close }),
            Tag::Error => Ok(Self { id, message: Message::Error(ErrorMessage::decode(value)?) }),
        }
    }

    /// Appends the packet to `out`: at most [`limits::MAX_PACKET_LEN`] bytes.
    ///
    /// What a value holds beyond its known fields (bytes appended to metadata, the value of a Close) is not kept when
    /// a packet is decoded, and so is not written.
    #[inline]
    pub fn encode(&self, out: &mut impl BufMut) {
        //= VTX-FRM-001
        let id = self.id;
        match self.message {
            Message::Download(download) => out.put_slice(&download.encode(id)),
            Message::Content(kind, metadata) => metadata.encode(id, kind, out),
            Message::Reserved(tag, value) => {
                let limit = limits::MAX_VALUE_LEN;
                let length = u32::try_from(value.len()).unwrap_or(limit).min(limit);
                out.put_slice(&Header { id, tag: Tag::Reserved(tag), length }.encode());
                out.put_slice(value.get(..length as usize).unwrap_or_default());
            }
            //= VTX-CLS-001
            Message::Close => out.put_slice(&Header { id, tag: Tag::Close, length: 0 }.encode()),
            Message::Error(error) => error.encode(id, out),
        }
    }
}

/// Reads a value for the reason that it is refused for.
#[cold]
#[inline(never)]
fn reasoned(id: u8, tag: Tag, value: &[u8]) -> Result<Packet<'_>, DecodeError> {
    Packet::read(id, tag, value)
}

/// Header and value of the packet at the front of `bytes`, and what follows it.
#[inline]
fn split(bytes: &[u8]) -> Result<(Header, &[u8], &[u8]), DecodeError> {
    //= VTX-FRM-010
    let truncated = |need| DecodeError::Truncated { have: bytes.len(), need };
    let (header, rest) = bytes.split_first_chunk().ok_or_else(|| truncated(limits::HEADER_LEN))?;
    let header = Header::decode(*header);
    header.check()?;
    //= VTX-FRM-014
    let length = header.length as usize;
    let (value, rest) =
        rest.split_at_checked(length).ok_or_else(|| truncated(limits::HEADER_LEN + length))?;
    Ok((header, value, rest))
}

impl<'a> Message<'a> {
    /// Its tag.
    #[must_use]
    pub fn tag(&self) -> Tag {
        match self {
            Self::Download(download) => Tag::Download(download.kind),
            Self::Content(kind, _) => Tag::Content(*kind),
            Self::Reserved(tag, _) => Tag::Reserved(*tag),
            Self::Close => Tag::Close,
            Self::Error(_) => Tag::Error,
        }
    }
}
