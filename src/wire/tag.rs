//! The tag registry.

use super::limits;
use std::fmt;
use std::str::FromStr;

/// Which of the four kinds of piece a task has. The kinds differ by tag only, and are kept apart: one task id under two
/// kinds names two tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PieceKind {
    /// A piece of an ordinary task.
    Piece,
    /// A piece of a persistent task.
    Persistent,
    /// A piece of a persistent cache task.
    PersistentCache,
    /// A piece of a cache task.
    Cache,
}

/// The text names no kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected piece, persistent, persistent-cache or cache")]
pub struct UnknownKind;

impl PieceKind {
    /// Every kind, in the order of the tags.
    pub const ALL: [Self; 4] = [Self::Piece, Self::Persistent, Self::PersistentCache, Self::Cache];

    /// The kind's name: `piece`, `persistent`, `persistent-cache`, `cache`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Piece => "piece",
            Self::Persistent => "persistent",
            Self::PersistentCache => "persistent-cache",
            Self::Cache => "cache",
        }
    }

    /// The tag of a Download packet for this kind; that of the Content packet is one above.
    const fn download_tag(self) -> u8 {
        match self {
            Self::Piece => 0x00,
            Self::Persistent => 0x02,
            Self::PersistentCache => 0x04,
            Self::Cache => 0x06,
        }
    }
}

impl fmt::Display for PieceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for PieceKind {
    type Err = UnknownKind;
    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        Self::ALL.into_iter().find(|kind| kind.name() == text).ok_or(UnknownKind)
    }
}

/// Which message a value holds. Each of the 256 values is a tag, if only a reserved one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tag {
    /// 0x00, 0x02, 0x04, 0x06: a request for a piece.
    Download(PieceKind),
    /// 0x01, 0x03, 0x05, 0x07: the metadata of a piece; its content follows the packet.
    Content(PieceKind),
    /// 0x08 to 0xFD.
    Reserved(ReservedTag),
    /// 0xFE.
    Close,
    /// 0xFF.
    Error,
}

/// A tag from 0x08 to 0xFD.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReservedTag(u8);

impl ReservedTag {
    /// The reserved tag with this value; `None` for one that is given out.
    #[must_use]
    pub const fn new(tag: u8) -> Option<Self> {
        if matches!(tag, 0x08..=0xFD) { Some(Self(tag)) } else { None }
    }

    /// The tag's value, 0x08 to 0xFD.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl From<u8> for Tag {
    #[inline]
    fn from(tag: u8) -> Self {
        //= VTX-TAG-001
        match tag {
            0x00 => Self::Download(PieceKind::Piece),
            0x01 => Self::Content(PieceKind::Piece),
            0x02 => Self::Download(PieceKind::Persistent),
            0x03 => Self::Content(PieceKind::Persistent),
            0x04 => Self::Download(PieceKind::PersistentCache),
            0x05 => Self::Content(PieceKind::PersistentCache),
            0x06 => Self::Download(PieceKind::Cache),
            0x07 => Self::Content(PieceKind::Cache),
            0x08..=0xFD => Self::Reserved(ReservedTag(tag)),
            0xFE => Self::Close,
            0xFF => Self::Error,
        }
    }
}

impl From<Tag> for u8 {
    #[inline]
    fn from(tag: Tag) -> Self {
        match tag {
            Tag::Download(kind) => kind.download_tag(),
            Tag::Content(kind) => kind.download_tag() + 1,
            Tag::Reserved(tag) => tag.0,
            Tag::Close => 0xFE,
            Tag::Error => 0xFF,
        }
    }
}

impl Tag {
    /// The values of Length that a packet with this tag may have, in bytes.
    #[must_use]
    #[inline]
    pub const fn lengths(self) -> Lengths {
        let (least, most) = match self {
            Self::Download(_) => (limits::DOWNLOAD_LEN, limits::DOWNLOAD_LEN),
            Self::Content(_) => (limits::MIN_METADATA_LEN, limits::MAX_VALUE_LEN),
            //= VTX-CLS-002
            Self::Reserved(_) | Self::Close => (0, limits::MAX_VALUE_LEN),
            Self::Error => (1, limits::MAX_VALUE_LEN),
        };
        Lengths { least, most }
    }

    /// The message's name in the registry.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Download(PieceKind::Piece) => "Download Piece",
            Self::Content(PieceKind::Piece) => "Piece Content",
            Self::Download(PieceKind::Persistent) => "Download Persistent Piece",
            Self::Content(PieceKind::Persistent) => "Persistent Piece Content",
            Self::Download(PieceKind::PersistentCache) => "Download Persistent Cache Piece",
            Self::Content(PieceKind::PersistentCache) => "Persistent Cache Piece Content",
            Self::Download(PieceKind::Cache) => "Download Cache Piece",
            Self::Content(PieceKind::Cache) => "Cache Piece Content",
            Self::Reserved(_) => "Reserved",
            Self::Close => "Close",
            Self::Error => "Error",
        }
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reserved(tag) => write!(f, "Reserved 0x{:02X}", tag.0),
            _ => f.pad(self.name()),
        }
    }
}

/// The values of Length that a tag allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lengths {
    least: u32,
    most: u32,
}

impl Lengths {
    /// Whether `length` is among them.
    #[must_use]
    #[inline]
    pub const fn contains(self, length: u32) -> bool {
        self.least <= length && length <= self.most
    }
}

impl fmt::Display for Lengths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { least, most } = self;
        if least == most { write!(f, "{least}") } else { write!(f, "{least} to {most}") }
    }
}
