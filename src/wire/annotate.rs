//! A packet, explained field by field: for tools, test vectors and documents.

use super::{Bounded, DecodeError, ErrorCode, Escaped, Header, Message, Packet, Tag, TaskId, limits};
use std::fmt::{self, Write as _};

/// The bytes of what should be one packet, explained as far as they go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Annotated<'a> {
    /// All bytes.
    pub bytes: &'a [u8],
    /// The fields that are there, in order, without a gap between them; those of a well-formed packet cover it.
    pub fields: Vec<Field<'a>>,
    /// What [`Packet::decode_exact`] makes of the bytes.
    pub packet: Result<Packet<'a>, DecodeError>,
}

/// One field of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// Where it begins, in bytes from the begin of the packet.
    pub offset: usize,
    /// Bytes of it.
    pub length: usize,
    /// Its name, as in the test vectors: `id`, `task_id`, `piece_length`, …
    pub name: &'static str,
    /// What it says.
    pub value: FieldValue<'a>,
}

/// What a field says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldValue<'a> {
    /// A number of one or four bytes.
    Number(u32),
    /// A number of eight bytes.
    Unsigned(u64),
    /// A number of eight bytes with a sign.
    Signed(i64),
    /// A text. It may hold anything that is UTF-8: [`Escaped`] makes it safe to show.
    Text(&'a str),
    /// Bytes without a meaning here, or a text that is not UTF-8.
    Bytes(&'a [u8]),
}

/// Explains `bytes`, which should hold exactly one packet.
#[must_use]
pub fn annotate(bytes: &[u8]) -> Annotated<'_> {
    let mut cursor = Cursor { bytes, offset: 0, end: bytes.len(), fields: Vec::new() };
    // `None` says that the bytes end early, which `packet` tells better.
    let _ = cursor.packet();
    Annotated { bytes, fields: cursor.fields, packet: Packet::decode_exact(bytes) }
}

impl<'a> Annotated<'a> {
    /// What no field explains: a field that is cut short, a value that is not looked at, bytes after the packet.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.explained()..).unwrap_or_default()
    }

    fn explained(&self) -> usize {
        self.fields.last().map_or(0, |field| field.offset + field.length)
    }
}

struct Cursor<'a> {
    bytes: &'a [u8],
    offset: usize,
    /// Where the value ends.
    end: usize,
    fields: Vec<Field<'a>>,
}

impl<'a> Cursor<'a> {
    fn packet(&mut self) -> Option<()> {
        let id = self.u8("id")?;
        let tag = Tag::from(self.u8("tag")?);
        let length = self.u32("length")?;
        Header { id, tag, length }.check().ok()?;
        let length = usize::try_from(length).ok()?;
        self.end = self.end.min(limits::HEADER_LEN + length);
        match tag {
            Tag::Download(_) => {
                self.text("task_id", TaskId::LEN)?;
                self.u32("number")?;
            }
            Tag::Content(_) => self.metadata()?,
            // An empty value is no field; one that is cut short is not yet one.
            Tag::Reserved(_) | Tag::Close if length == 0 => {}
            Tag::Reserved(_) | Tag::Close => self.raw("skipped", length)?,
            Tag::Error => {
                self.u8("code")?;
                self.text("message", length - 1)?;
            }
        }
        Some(())
    }

    fn metadata(&mut self) -> Option<()> {
        self.u32("metadata_length")?;
        self.u32("number")?;
        self.u64("offset")?;
        self.u64("piece_length")?;
        let digest_length = self.u32("digest_length")?;
        self.text("digest", usize::try_from(digest_length).ok()?)?;
        let parent_id_length = self.u32("parent_id_length")?;
        self.text("parent_id", usize::try_from(parent_id_length).ok()?)?;
        self.u8("traffic_type")?;
        self.u64("cost")?;
        let (offset, bytes) = self.take::<8>()?;
        let value = FieldValue::Signed(i64::from_be_bytes(bytes));
        self.fields.push(Field { offset, length: 8, name: "created_at", value });
        match self.end - self.offset {
            0 => Some(()),
            appended => self.raw("appended", appended),
        }
    }

    fn take<const N: usize>(&mut self) -> Option<(usize, [u8; N])> {
        let offset = self.offset;
        let (bytes, _) = self.bytes.get(offset..self.end)?.split_first_chunk()?;
        self.offset += N;
        Some((offset, *bytes))
    }

    fn u8(&mut self, name: &'static str) -> Option<u8> {
        let (offset, [value]) = self.take()?;
        self.fields.push(Field { offset, length: 1, name, value: FieldValue::Number(value.into()) });
        Some(value)
    }

    fn u32(&mut self, name: &'static str) -> Option<u32> {
        let (offset, bytes) = self.take()?;
        let value = u32::from_be_bytes(bytes);
        self.fields.push(Field { offset, length: 4, name, value: FieldValue::Number(value) });
        Some(value)
    }

    fn u64(&mut self, name: &'static str) -> Option<()> {
        let (offset, bytes) = self.take()?;
        let value = FieldValue::Unsigned(u64::from_be_bytes(bytes));
        self.fields.push(Field { offset, length: 8, name, value });
        Some(())
    }

    fn text(&mut self, name: &'static str, length: usize) -> Option<()> {
        self.field(name, length, |bytes| match std::str::from_utf8(bytes) {
            Ok(text) => FieldValue::Text(text),
            Err(_) => FieldValue::Bytes(bytes),
        })
    }

    fn raw(&mut self, name: &'static str, length: usize) -> Option<()> {
        self.field(name, length, FieldValue::Bytes)
    }

    fn field(
        &mut self,
        name: &'static str,
        length: usize,
        value: impl FnOnce(&'a [u8]) -> FieldValue<'a>,
    ) -> Option<()> {
        let offset = self.offset;
        let (bytes, _) = self.bytes.get(offset..self.end)?.split_at_checked(length)?;
        self.offset += length;
        self.fields.push(Field { offset, length, name, value: value(bytes) });
        Some(())
    }
}

/// The value as a person reads it: peer text is quoted and escaped.
impl fmt::Display for Field<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.name, self.value) {
            ("tag", FieldValue::Number(tag)) => {
                let tag = u8::try_from(tag).unwrap_or_default();
                write!(f, "0x{tag:02x}, {}", Tag::from(tag).name())
            }
            ("code", FieldValue::Number(code)) => {
                write!(f, "{code}, {}", ErrorCode::from(u8::try_from(code).unwrap_or_default()))
            }
            (_, FieldValue::Number(number)) => number.fmt(f),
            (_, FieldValue::Unsigned(number)) => number.fmt(f),
            (_, FieldValue::Signed(number)) => number.fmt(f),
            (_, FieldValue::Text(text)) => {
                let shown = Bounded::<{ Annotated::SHOWN }>::cut(text).as_str();
                let more = if shown.len() < text.len() { " …" } else { "" };
                write!(f, "\"{}\"{more}", Escaped(shown))
            }
            (_, FieldValue::Bytes(bytes)) => write!(f, "{} bytes", bytes.len()),
        }
    }
}

/// Hexadecimal with comments: offset, bytes, and beside the first of them what they say.
impl fmt::Display for Annotated<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for field in &self.fields {
            let comment = format_args!("{}: {field}", field.name);
            self.rows(f, field.offset, field.length, comment)?;
        }
        let rest = self.rest().len();
        if rest > 0 {
            self.rows(f, self.explained(), rest, format_args!("not explained: {rest} bytes"))?;
        }
        match &self.packet {
            Ok(Packet { message: Message::Content(_, metadata), .. }) => {
                writeln!(f, "      then {} content bytes, outside of the packet", metadata.length)
            }
            Ok(_) => Ok(()),
            Err(error) => writeln!(f, "      {error}"),
        }
    }
}

impl Annotated<'_> {
    /// Bytes in a row.
    const ROW: usize = 16;
    /// Bytes of one field that are written out: enough for every known digest.
    const SHOWN: usize = 256;

    fn rows(
        &self,
        f: &mut fmt::Formatter<'_>,
        offset: usize,
        length: usize,
        comment: fmt::Arguments<'_>,
    ) -> fmt::Result {
        let bytes = self.bytes.get(offset..offset + length).unwrap_or_default();
        let shown = bytes.get(..length.min(Self::SHOWN)).unwrap_or_default();
        let mut row = String::with_capacity(3 * Self::ROW);
        // A field without bytes has a row all the same, for its comment.
        for start in (0..shown.len().max(1)).step_by(Self::ROW) {
            row.clear();
            for byte in shown.iter().skip(start).take(Self::ROW) {
                write!(row, "{byte:02x} ")?;
            }
            match start {
                0 => writeln!(f, "{:04x}  {row:<48} {comment}", offset + start)?,
                _ => writeln!(f, "{:04x}  {}", offset + start, row.trim_end())?,
            }
        }
        match length - shown.len() {
            0 => Ok(()),
            more => writeln!(f, "      and {more} bytes more"),
        }
    }
}
