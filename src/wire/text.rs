//! Text of limited length, as packets carry it.

use super::DecodeError;
use std::fmt;

/// UTF-8 of at most `MAX` bytes, borrowed.
///
/// A peer may put anything into it: `Display` and `Debug` escape control characters, so that it can go to a log or a
/// terminal; [`Bounded::as_str`] is the text itself.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Bounded<'a, const MAX: usize>(&'a str);

/// The text is longer than the field allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a text of {length} bytes, expected at most {limit}")]
pub struct TooLong {
    /// Its length in bytes.
    pub length: usize,
    /// The limit in bytes.
    pub limit: usize,
}

impl<'a, const MAX: usize> Bounded<'a, MAX> {
    /// `text`, if it is short enough.
    ///
    /// # Errors
    /// [`TooLong`] when it has more than `MAX` bytes.
    #[inline]
    pub fn new(text: &'a str) -> Result<Self, TooLong> {
        if text.len() <= MAX { Ok(Self(text)) } else { Err(TooLong { length: text.len(), limit: MAX }) }
    }

    /// The text of a field: short enough, then UTF-8.
    #[inline]
    pub(super) fn decode<E: From<DecodeError>>(field: &'static str, bytes: &'a [u8]) -> Result<Self, E> {
        if bytes.len() > MAX {
            let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            return Err(DecodeError::FieldTooLong { field, length, limit: MAX }.into());
        }
        Ok(Self(utf8(bytes).ok_or(DecodeError::NotUtf8 { field })?))
    }

    /// As much of `text` as fits, cut between two characters.
    #[must_use]
    pub fn cut(text: &'a str) -> Self {
        Self(text.get(..text.floor_char_boundary(MAX)).unwrap_or_default())
    }

    /// The text as it is: not safe for a terminal.
    #[must_use]
    pub fn as_str(self) -> &'a str {
        self.0
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }
}

impl<const MAX: usize> fmt::Display for Bounded<'_, MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Escaped(self.0).fmt(f)
    }
}

impl<const MAX: usize> fmt::Debug for Bounded<'_, MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", Escaped(self.0))
    }
}

/// The text in `bytes`. Nearly all of it is ASCII, which is told apart several times faster than UTF-8 is checked.
#[inline]
fn utf8(bytes: &[u8]) -> Option<&str> {
    match ascii::AsciiStr::from_ascii(bytes) {
        Ok(text) => Some(text.as_str()),
        Err(_) => std::str::from_utf8(bytes).ok(),
    }
}

/// Peer text, made safe for a log or a terminal: what is not printable is escaped, the rest stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        //= VTX-SEC-001
        for part in self.0.split_inclusive(needs_escape) {
            match part.char_indices().next_back() {
                Some((at, last)) if needs_escape(last) => {
                    write!(f, "{}{}", part.get(..at).unwrap_or_default(), last.escape_default())?;
                }
                _ => f.write_str(part)?,
            }
        }
        Ok(())
    }
}

/// Control characters steer terminals and end log lines; the bidirectional marks reorder what is read.
fn needs_escape(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
