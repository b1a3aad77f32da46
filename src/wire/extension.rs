//! The extensions: capabilities, range, task description, availability. Tags 0xF0 to 0xF7.
//!
//! ```text
//!  request               value
//!  0xF0 capabilities     -
//!  0xF2 range            kind u8, task id 64, number u32, start u32, length u32
//!  0xF4 description      kind u8, task id 64
//!  0xF6 availability     kind u8, task id 64, first u32; optional: known u32, wait u32
//!
//!  answer                value
//!  0xF1 capabilities     count u8, tags
//!  0xF3 range            start u32, length u32, piece length u32, digest length u32, digest; content follows
//!  0xF5 description      length u64, piece length u32, digest length u32, digest
//!  0xF7 availability     first u32, count u32, bits
//! ```
//!
//! Bytes after the known fields are ignored: later versions append.

use super::{Digest, Division, Download, Header, PieceKind, PieceLength, ReservedTag, Tag, TaskId, limits};
use bytes::{BufMut, Bytes, BytesMut};
use std::time::Duration;

/// The largest range, in bytes: its digest is computed before its first byte is sent, so it is held in memory.
pub const MAX_RANGE_LEN: u32 = 16 << 20;

/// Pieces that one availability answer tells of at most: 8 KiB of bits.
pub const MAX_AVAILABILITY: u32 = 1 << 16;

/// The longest time for which a server holds an availability answer back: well within the deadline by which it has to
/// begin to answer, and the one by which its client gives it up.
pub const MAX_HOLD: Duration = Duration::from_secs(10);

/// Which extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Extension {
    /// Which extensions a server knows.
    Capabilities,
    /// A part of a piece.
    Range,
    /// The length of a task and of its pieces.
    Description,
    /// Which pieces of a task a server holds.
    Availability,
}

impl Extension {
    /// Every extension, in the order of the tags.
    pub const ALL: [Self; 4] = [Self::Capabilities, Self::Range, Self::Description, Self::Availability];

    /// The tag of its requests. No packet is made with another reserved tag, but for that of its answer.
    #[must_use]
    pub const fn request_tag(self) -> u8 {
        //= VTX-TAG-003
        match self {
            Self::Capabilities => 0xF0,
            Self::Range => 0xF2,
            Self::Description => 0xF4,
            Self::Availability => 0xF6,
        }
    }

    /// The tag of its answers.
    #[must_use]
    pub const fn answer_tag(self) -> u8 {
        //= VTX-EXT-001
        self.request_tag() + 1
    }

    /// The extension that asks with `tag`, if it is known.
    #[must_use]
    pub fn asked_by(tag: ReservedTag) -> Option<Self> {
        Self::ALL.into_iter().find(|extension| extension.request_tag() == tag.get())
    }
}

/// A request of an extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExtensionRequest {
    /// Which extensions are known.
    Capabilities,
    /// A part of a piece.
    Range {
        /// The piece.
        piece: Download,
        /// Its first byte of interest.
        start: u32,
        /// Bytes of interest.
        length: u32,
    },
    /// What a task is like.
    Description {
        /// Which kind of task.
        kind: PieceKind,
        /// Which task.
        task_id: TaskId,
    },
    /// Which pieces of a task are held.
    Availability {
        /// Which kind of task.
        kind: PieceKind,
        /// Which task.
        task_id: TaskId,
        /// The first piece number of interest.
        first: u32,
        /// What is no news; `None`: the answer is wanted at once, whatever it says.
        hold: Option<Hold>,
    },
}

/// Until when an availability answer may be held back: until it has news, or for some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold {
    /// How many of the pieces that the answer would tell of are known to be held.
    pub known: u32,
    /// Milliseconds; a server takes no more of them than [`MAX_HOLD`].
    pub wait: u32,
}

/// The value of an extension's packet does not hold its fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ExtensionError {
    /// It ends too early.
    #[error("the value ends within {field}")]
    Short {
        /// The field that is cut off.
        field: &'static str,
    },
    /// A field has a value that it can't have.
    #[error("{field} is not valid")]
    Invalid {
        /// The field.
        field: &'static str,
    },
}

impl ExtensionRequest {
    /// Which extension it is of.
    #[must_use]
    pub fn extension(&self) -> Extension {
        match self {
            Self::Capabilities => Extension::Capabilities,
            Self::Range { .. } => Extension::Range,
            Self::Description { .. } => Extension::Description,
            Self::Availability { .. } => Extension::Availability,
        }
    }

    /// The whole packet.
    #[must_use]
    pub fn encode(&self, id: u8) -> Bytes {
        //= VTX-EXT-007
        //= VTX-EXT-011
        //= VTX-EXT-016
        //= VTX-EXT-019
        packet(id, self.extension().request_tag(), |value| match *self {
            Self::Capabilities => {}
            Self::Range { piece, start, length } => {
                put_task(piece.kind, &piece.task_id, value);
                value.put_u32(piece.number);
                value.put_u32(start);
                value.put_u32(length);
            }
            Self::Description { kind, task_id } => put_task(kind, &task_id, value),
            Self::Availability { kind, task_id, first, hold } => {
                put_task(kind, &task_id, value);
                value.put_u32(first);
                //= VTX-EXT-024
                if let Some(Hold { known, wait }) = hold {
                    value.put_u32(known);
                    value.put_u32(wait);
                }
            }
        })
    }

    /// Reads the value of a request of `extension`.
    ///
    /// # Errors
    /// [`ExtensionError`]: the answer to such a request is Error code 1.
    pub fn decode(extension: Extension, value: &[u8]) -> Result<Self, ExtensionError> {
        //= VTX-EXT-006
        //= VTX-EXT-014
        let mut value = Fields(value);
        Ok(match extension {
            Extension::Capabilities => Self::Capabilities,
            Extension::Range => {
                let (kind, task_id) = value.task()?;
                let piece = Download { kind, task_id, number: value.u32("number")? };
                Self::Range { piece, start: value.u32("start")?, length: value.u32("length")? }
            }
            Extension::Description => {
                let (kind, task_id) = value.task()?;
                Self::Description { kind, task_id }
            }
            Extension::Availability => {
                let (kind, task_id) = value.task()?;
                let first = value.u32("first")?;
                //= VTX-EXT-025
                let hold = match (value.u32("known"), value.u32("wait")) {
                    (Ok(known), Ok(wait)) => Some(Hold { known, wait }),
                    _ => None,
                };
                Self::Availability { kind, task_id, first, hold }
            }
        })
    }
}

/// The answer to a capabilities request: the extensions that a server answers, capabilities aside.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Capabilities(pub Vec<Extension>);

impl Capabilities {
    /// Everything that this implementation answers.
    #[must_use]
    pub fn all() -> Self {
        Self(Extension::ALL.into_iter().filter(|extension| *extension != Extension::Capabilities).collect())
    }

    /// The whole packet.
    #[must_use]
    pub fn encode(&self, id: u8) -> Bytes {
        //= VTX-EXT-008
        packet(id, Extension::Capabilities.answer_tag(), |value| {
            value.put_u8(u8::try_from(self.0.len()).unwrap_or(u8::MAX));
            self.0.iter().for_each(|extension| value.put_u8(extension.request_tag()));
        })
    }

    /// Reads the value of an answer. Tags that are not known here are left out.
    ///
    /// # Errors
    /// [`ExtensionError::Short`].
    pub fn decode(value: &[u8]) -> Result<Self, ExtensionError> {
        let mut value = Fields(value);
        let count = usize::from(value.u8("count")?);
        let tags = value.bytes(count, "tags")?;
        let known = |tag: &u8| ReservedTag::new(*tag).and_then(Extension::asked_by);
        Ok(Self(tags.iter().filter_map(known).collect()))
    }
}

/// The answer to a description request: what a server says of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Description {
    /// Its length and that of its pieces.
    pub division: Division,
    /// The digest of the whole task, where the server knows it.
    pub digest: Option<Digest>,
}

impl Description {
    /// The whole packet.
    #[must_use]
    pub fn encode(&self, id: u8) -> Bytes {
        //= VTX-EXT-012
        packet(id, Extension::Description.answer_tag(), |value| {
            value.put_u64(self.division.length());
            value.put_u32(self.division.piece_length().get());
            put_digest(self.digest.as_ref(), value);
        })
    }

    /// Reads the value of an answer.
    ///
    /// # Errors
    /// [`ExtensionError`], also for a division that no task can have.
    pub fn decode(value: &[u8]) -> Result<Self, ExtensionError> {
        //= VTX-EXT-015
        let mut value = Fields(value);
        let length = value.u64("length")?;
        let piece_length = value.piece_length()?;
        let division = Division::new(length, piece_length)
            .map_err(|_| ExtensionError::Invalid { field: "piece length" })?;
        Ok(Self { division, digest: value.digest()? })
    }
}

/// The answer to an availability request: which pieces a server holds, from one on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Availability {
    /// The piece that the first bit is about.
    pub first: u32,
    /// Whether each piece from there on is held; at most [`MAX_AVAILABILITY`].
    pub held: Vec<bool>,
}

impl Availability {
    /// The whole packet.
    #[must_use]
    pub fn encode(&self, id: u8) -> Bytes {
        //= VTX-EXT-017
        packet(id, Extension::Availability.answer_tag(), |value| {
            let told = self.held.get(..MAX_AVAILABILITY as usize).unwrap_or(&self.held);
            value.put_u32(self.first);
            value.put_u32(u32::try_from(told.len()).unwrap_or(MAX_AVAILABILITY));
            for eight in told.chunks(8) {
                let bits = eight.iter().zip([0x80, 0x40, 0x20, 0x10, 8, 4, 2, 1]);
                value.put_u8(bits.map(|(held, bit)| if *held { bit } else { 0 }).sum());
            }
        })
    }

    /// Reads the value of an answer.
    ///
    /// # Errors
    /// [`ExtensionError`].
    pub fn decode(value: &[u8]) -> Result<Self, ExtensionError> {
        let mut value = Fields(value);
        let first = value.u32("first")?;
        let count = value.u32("count")?;
        if count > MAX_AVAILABILITY {
            return Err(ExtensionError::Invalid { field: "count" });
        }
        let count = count as usize;
        let bytes = value.bytes(count.div_ceil(8), "bits")?;
        let bits = bytes.iter().flat_map(|byte| (0..8).map(move |bit| byte & (0x80 >> bit) != 0));
        Ok(Self { first, held: bits.take(count).collect() })
    }
}

/// The head of the answer to a range request. Its bytes follow the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RangeHead {
    /// The first byte, from the begin of the piece.
    pub start: u32,
    /// Bytes that follow the packet, at most [`MAX_RANGE_LEN`].
    pub length: u32,
    /// Bytes of the whole piece.
    pub piece_length: PieceLength,
    /// The digest of the bytes that follow.
    pub digest: Digest,
}

impl RangeHead {
    /// The whole packet.
    #[must_use]
    pub fn encode(&self, id: u8) -> Bytes {
        //= VTX-EXT-020
        packet(id, Extension::Range.answer_tag(), |value| {
            value.put_u32(self.start);
            value.put_u32(self.length);
            value.put_u32(self.piece_length.get());
            put_digest(Some(&self.digest), value);
        })
    }

    /// Reads the value of an answer to a request for `length` bytes from `start` on.
    ///
    /// # Errors
    /// [`ExtensionError`], also where the answer is not to that request.
    pub fn decode(value: &[u8], start: u32, length: u32) -> Result<Self, ExtensionError> {
        //= VTX-EXT-022
        let mut value = Fields(value);
        let invalid = |field| ExtensionError::Invalid { field };
        if value.u32("start")? != start {
            return Err(invalid("start"));
        }
        let follows = value.u32("length")?;
        let piece_length = value.piece_length()?;
        let expected = piece_length.get().checked_sub(start).map(|left| left.min(length));
        if Some(follows) != expected || follows == 0 {
            return Err(invalid("length"));
        }
        let digest = value.digest()?.ok_or(invalid("digest"))?;
        Ok(Self { start, length: follows, piece_length, digest })
    }
}

/// A packet with what `fill` puts into its value.
fn packet(id: u8, tag: u8, fill: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut packet = BytesMut::with_capacity(limits::HEADER_LEN + 128);
    packet.put_bytes(0, limits::HEADER_LEN);
    fill(&mut packet);
    let length = u32::try_from(packet.len() - limits::HEADER_LEN).unwrap_or(limits::MAX_VALUE_LEN);
    let header = Header { id, tag: Tag::from(tag), length }.encode();
    if let Some(head) = packet.first_chunk_mut() {
        *head = header;
    }
    packet.freeze()
}

fn put_task(kind: PieceKind, task_id: &TaskId, value: &mut BytesMut) {
    value.put_u8(Tag::Download(kind).into());
    value.put_slice(task_id.as_bytes());
}

fn put_digest(digest: Option<&Digest>, value: &mut BytesMut) {
    let text = digest.map(Digest::to_text).unwrap_or_default();
    value.put_u32(u32::try_from(text.as_str().len()).unwrap_or_default());
    value.put_slice(text.as_str().as_bytes());
}

/// What is left of a value.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], ExtensionError> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(ExtensionError::Short { field })?;
        self.0 = rest;
        Ok(*bytes)
    }

    fn bytes(&mut self, count: usize, field: &'static str) -> Result<&'a [u8], ExtensionError> {
        let (bytes, rest) = self.0.split_at_checked(count).ok_or(ExtensionError::Short { field })?;
        self.0 = rest;
        Ok(bytes)
    }

    fn u8(&mut self, field: &'static str) -> Result<u8, ExtensionError> {
        self.take(field).map(u8::from_be_bytes)
    }

    fn u32(&mut self, field: &'static str) -> Result<u32, ExtensionError> {
        self.take(field).map(u32::from_be_bytes)
    }

    fn u64(&mut self, field: &'static str) -> Result<u64, ExtensionError> {
        self.take(field).map(u64::from_be_bytes)
    }

    fn task(&mut self) -> Result<(PieceKind, TaskId), ExtensionError> {
        let invalid = |field| ExtensionError::Invalid { field };
        let Tag::Download(kind) = Tag::from(self.u8("kind")?) else { return Err(invalid("kind")) };
        let task_id = TaskId::from_bytes(&self.take("task id")?).map_err(|_| invalid("task id"))?;
        Ok((kind, task_id))
    }

    fn piece_length(&mut self) -> Result<PieceLength, ExtensionError> {
        let length = u64::from(self.u32("piece length")?);
        PieceLength::try_from(length).map_err(|_| ExtensionError::Invalid { field: "piece length" })
    }

    /// A digest, or none where the text is empty.
    fn digest(&mut self) -> Result<Option<Digest>, ExtensionError> {
        let invalid = ExtensionError::Invalid { field: "digest" };
        let length = usize::try_from(self.u32("digest length")?).map_err(|_| invalid)?;
        if length > limits::MAX_DIGEST_LEN {
            return Err(invalid);
        }
        let text = std::str::from_utf8(self.bytes(length, "digest")?).map_err(|_| invalid)?;
        if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(|_| invalid) }
    }
}
