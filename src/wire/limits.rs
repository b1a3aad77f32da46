//! Every limit of the wire format, with its reason. The specification's table of limits is the source.

/// Bytes of a header: id, tag, Length.
pub const HEADER_LEN: usize = 6;

/// The largest Length that any packet may declare, in bytes.
///
/// The largest message is metadata with the longest digest and parent id, 1,329 bytes; the rest is room for fields that
/// later versions append. Deployed peers accept up to 4 GiB and reserve it before a byte arrives.
pub const MAX_VALUE_LEN: u32 = 16_384;

/// Bytes of the largest packet.
pub const MAX_PACKET_LEN: usize = HEADER_LEN + MAX_VALUE_LEN as usize;

/// Length of a Download packet, in bytes: a task id and a piece number.
pub const DOWNLOAD_LEN: u32 = 68;

/// The smallest Length of a Content packet, in bytes: every field, with empty digest and parent id.
pub const MIN_METADATA_LEN: u32 = 49;

/// The largest piece, in bytes of content. Deployed peers cut pieces of at most 64 MiB; their text names 1 GiB.
pub const MAX_PIECE_LEN: u32 = 1 << 30;

/// Bytes of the longest digest text. The longest known one, sha512, has 135.
pub const MAX_DIGEST_LEN: usize = 256;

/// Bytes of the longest parent id. Deployed ones are host name, address and two UUIDs, under 200.
pub const MAX_PARENT_ID_LEN: usize = 1024;

/// Bytes of the longest error message that is understood: all that a packet can hold beside the code.
pub const MAX_ERROR_MESSAGE_LEN: usize = MAX_VALUE_LEN as usize - 1;

/// Bytes of the longest error message that is sent. It is for a person to read; more is a flood.
pub const MAX_SENT_ERROR_MESSAGE_LEN: usize = 1024;

/// Pieces of the largest task: as many as a piece number can tell apart.
pub const MAX_PIECES: u64 = 1 << 32;
