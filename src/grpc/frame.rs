//! A message in its frame: a byte that says whether it is compressed, its length in four bytes, the message.

use super::{MAX_HEAD_LEN, Piece};
use crate::wire::PieceLength;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

/// Bytes before a message.
const PREFIX_LEN: usize = 5;

/// Field numbers that [`response_head`] writes by itself.
const RESPONSE_PIECE: u32 = 1;
const PIECE_CONTENT: u32 = 6;

/// `message` in its frame.
pub(crate) fn encode(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(PREFIX_LEN + length);
    put_prefix(length, &mut frame);
    // It fails only for want of room, and the buffer grows.
    let _ = message.encode(&mut frame);
    frame.freeze()
}

/// A response in its frame, up to the content, which comes last in it: exactly `length` bytes have to follow.
///
/// Fields may come in any order; so the content need not be copied into the message, nor be in memory at all.
pub(crate) fn response_head(piece: &Piece, length: PieceLength) -> Bytes {
    debug_assert!(piece.content.is_none(), "the content is to follow");
    let length = u64::from(length);
    let fields_len = piece.encoded_len();
    let content_len = key_len(PIECE_CONTENT) + encoded_len_varint(length);
    let piece_len = fields_len as u64 + content_len as u64 + length;
    let response_len = key_len(RESPONSE_PIECE) as u64 + encoded_len_varint(piece_len) as u64 + piece_len;

    let mut head = BytesMut::with_capacity(PREFIX_LEN + 2 * key_len(RESPONSE_PIECE) + 20 + fields_len);
    put_prefix(usize::try_from(response_len).unwrap_or(usize::MAX), &mut head);
    encode_key(RESPONSE_PIECE, WireType::LengthDelimited, &mut head);
    encode_varint(piece_len, &mut head);
    // As above.
    let _ = piece.encode(&mut head);
    encode_key(PIECE_CONTENT, WireType::LengthDelimited, &mut head);
    encode_varint(length, &mut head);
    head.freeze()
}

fn put_prefix(length: usize, frame: &mut BytesMut) {
    frame.put_u8(0);
    // A piece has 1 GiB at most, so every message is far below 4 GiB.
    frame.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
}

/// Puts one message together from what arrives.
#[derive(Debug)]
pub(crate) struct MessageReader {
    /// The longest message that is taken.
    limit: u32,
    /// How much of a message this side knows to come, and so reserves at once. Beyond that, memory grows with what has
    /// arrived.
    known: u32,
    /// Bytes of the message, once its prefix is complete.
    length: Option<u32>,
    buffer: BytesMut,
}

/// Why bytes are not the message that was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadMessage {
    #[error("a message of {length} bytes, expected at most {limit}")]
    TooLarge { length: u32, limit: u32 },
    #[error("a compressed message, expected none")]
    Compressed,
    #[error("bytes after the only message")]
    Trailing,
}

impl MessageReader {
    /// A reader for a message of at most `limit` bytes.
    pub(crate) fn new(limit: u32) -> Self {
        Self { limit, known: 0, length: None, buffer: BytesMut::new() }
    }

    /// A reader for a response with content of `known` bytes, or with any piece.
    pub(crate) fn for_piece(known: Option<PieceLength>) -> Self {
        let content = known.unwrap_or(PieceLength::MAX).get();
        let limit = content + MAX_HEAD_LEN;
        Self { known: if known.is_some() { limit } else { 0 }, ..Self::new(limit) }
    }

    /// Takes the next bytes.
    pub(crate) fn receive(&mut self, bytes: &[u8]) -> Result<(), BadMessage> {
        self.buffer.extend_from_slice(bytes);
        if self.length.is_none() && self.buffer.len() >= PREFIX_LEN {
            let compressed = self.buffer.get_u8();
            let length = self.buffer.get_u32();
            if compressed != 0 {
                return Err(BadMessage::Compressed);
            }
            if length > self.limit {
                return Err(BadMessage::TooLarge { length, limit: self.limit });
            }
            let missing = (length.min(self.known) as usize).saturating_sub(self.buffer.len());
            self.buffer.reserve(missing);
            self.length = Some(length);
        }
        match self.length {
            Some(length) if self.buffer.len() > length as usize => Err(BadMessage::Trailing),
            _ => Ok(()),
        }
    }

    /// Whether the message is complete.
    pub(crate) fn is_complete(&self) -> bool {
        self.length.is_some_and(|length| self.buffer.len() == length as usize)
    }

    /// The message; what is missing of it is for the decoder to find.
    pub(crate) fn into_message(self) -> Bytes {
        self.buffer.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::PieceResponse;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_head_and_its_content_are_one_message(
            number in any::<u32>(), offset in any::<u64>(), digest in "[a-z0-9:]{0,80}",
            content in proptest::collection::vec(any::<u8>(), 0..300), cut in 1_usize..40,
        ) {
            let length = PieceLength::try_from(content.len() as u64).unwrap();
            let piece = Piece { number, offset, digest, length: length.into(), ..Piece::default() };
            let frame = [&response_head(&piece, length)[..], &content].concat();

            let mut reader = MessageReader::for_piece(Some(length));
            for part in frame.chunks(cut) {
                prop_assert!(!reader.is_complete());
                prop_assert_eq!(reader.receive(part), Ok(()));
            }
            prop_assert!(reader.is_complete());
            let response = PieceResponse::decode(reader.into_message()).unwrap();
            let whole = PieceResponse { piece: Some(Piece { content: Some(content.into()), ..piece }), digest: None };
            prop_assert_eq!(&response, &whole);
            // The same length as if the library had put it together.
            prop_assert_eq!(encode(&whole).len(), frame.len());
        }
    }

    #[test]
    fn memory_is_reserved_for_what_is_known_only() {
        let announced = [&[0][..], &(512_u32 << 20).to_be_bytes()].concat();
        let mut reader = MessageReader::for_piece(None);
        assert_eq!(reader.receive(&announced), Ok(()));
        assert!(reader.buffer.capacity() < 1 << 10);

        let mut reader = MessageReader::for_piece(Some(PieceLength::try_from(1000).unwrap()));
        let limit = 1000 + MAX_HEAD_LEN;
        assert_eq!(reader.receive(&announced), Err(BadMessage::TooLarge { length: 512 << 20, limit }));
    }

    #[test]
    fn one_uncompressed_message_is_expected() {
        assert_eq!(MessageReader::new(9).receive(&[1, 0, 0, 0, 0]), Err(BadMessage::Compressed));
        assert_eq!(MessageReader::new(9).receive(&[0, 0, 0, 0, 1, 7, 7]), Err(BadMessage::Trailing));
    }
}
