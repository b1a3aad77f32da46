//! How a packet is told: a commented dump for people, an object a line for programs.

use super::hex::HexPacket;
use super::stream::{Content, Item, Verdict};
use crate::exit::{Exit, Failure};
use serde::Serialize;
use std::io::{self, BufWriter, Write};
use vortex_p2p::wire::{Annotated, DecodeError, Field, FieldValue, Header, Tag, annotate};

/// Writes reports, and remembers whether all was well.
pub(super) struct Printer<W: Write> {
    out: BufWriter<W>,
    json: bool,
    exit: Exit,
}

#[derive(Serialize)]
struct Report<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    flow: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(flatten)]
    header: Option<HeaderReport>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    fields: Vec<FieldReport<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<ContentReport>,
}

#[derive(Serialize)]
struct HeaderReport {
    tag: u8,
    name: &'static str,
    id: u8,
    length: u32,
}

#[derive(Serialize)]
struct FieldReport<'a> {
    offset: usize,
    length: usize,
    name: &'static str,
    value: Value<'a>,
}

/// As in the test vectors: integers of 64 bits are strings, since many readers keep 53 bits only.
#[derive(Serialize)]
#[serde(untagged)]
enum Value<'a> {
    Number(u32),
    Text(&'a str),
    Digits(String),
}

#[derive(Serialize)]
struct ContentReport {
    length: u64,
    arrived: u64,
    digest: &'static str,
}

const GAP: &str = "gap: bytes are missing in the capture; what follows them is not explained";

impl<'a> Report<'a> {
    /// Of what is no packet at all.
    fn refused(error: &'a str, message: String) -> Self {
        Self {
            flow: None,
            offset: None,
            ok: false,
            error: Some(error),
            message: Some(message),
            header: None,
            fields: Vec::new(),
            hex: None,
            content: None,
        }
    }
}

impl<W: Write> Printer<W> {
    pub(super) fn new(out: W, json: bool) -> Self {
        Self { out: BufWriter::new(out), json, exit: Exit::Done }
    }

    /// One packet that stands alone.
    pub(super) fn line(&mut self, packet: &HexPacket) -> Result<(), Failure> {
        match packet.bytes() {
            Ok((bytes, missing)) => {
                let mut packet = annotate(bytes);
                if let Err(DecodeError::TrailingBytes { count }) = &mut packet.packet {
                    *count = count.saturating_add(usize::try_from(missing).unwrap_or(usize::MAX));
                }
                self.write(None, None, &packet, None)
            }
            Err(error) => {
                self.exit = Exit::Other;
                let message = error.to_string();
                if !self.json {
                    return Ok(writeln!(self.out, "{message}\n")?);
                }
                self.object(&Report::refused("not-hex", message))
            }
        }
    }

    /// One packet of a stream.
    pub(super) fn item(&mut self, flow: Option<&str>, mut item: Item<'_>) -> Result<(), Failure> {
        if let Some(error) = item.error {
            item.packet.packet = Err(error);
        }
        self.write(flow, Some(item.offset), &item.packet, item.content)
    }

    /// Bytes of a direction are missing, and nothing more is known of it.
    pub(super) fn gap(&mut self, flow: &str) -> Result<(), Failure> {
        self.exit = Exit::Other;
        if self.json {
            let report = Report { flow: Some(flow), ..Report::refused("gap", GAP.to_owned()) };
            return self.object(&report);
        }
        Ok(writeln!(self.out, "{flow}: {GAP}\n")?)
    }

    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        Ok(self.out.flush()?)
    }

    /// Everything is written.
    pub(super) fn finish(&mut self) -> Result<Exit, Failure> {
        self.flush()?;
        Ok(self.exit)
    }

    fn write(
        &mut self,
        flow: Option<&str>,
        offset: Option<u64>,
        packet: &Annotated<'_>,
        content: Option<Content>,
    ) -> Result<(), Failure> {
        let error = packet.packet.as_ref().err();
        match (error, content.map(|content| content.digest)) {
            (Some(_), _) | (_, Some(Verdict::Incomplete | Verdict::Malformed)) => self.exit = Exit::Other,
            (None, Some(Verdict::Mismatch)) if self.exit == Exit::Done => self.exit = Exit::Corrupt,
            _ => {}
        }
        if !self.json {
            return self.text(flow, offset, packet, content);
        }
        let header = packet.bytes.first_chunk().map(|head| Header::decode(*head));
        self.object(&Report {
            flow,
            offset,
            ok: error.is_none(),
            error: error.map(DecodeError::name),
            message: error.map(ToString::to_string),
            header: header.map(HeaderReport::from),
            fields: packet.fields.iter().map(FieldReport::from).collect(),
            hex: packet.packet.ok().map(|packet| {
                let mut bytes = Vec::new();
                packet.encode(&mut bytes);
                to_hex(&bytes)
            }),
            content: content.map(|content| ContentReport {
                length: content.length,
                arrived: content.arrived,
                digest: content.digest.name(),
            }),
        })
    }

    fn object(&mut self, report: &Report<'_>) -> Result<(), Failure> {
        serde_json::to_writer(&mut self.out, report).map_err(io::Error::from)?;
        Ok(writeln!(self.out)?)
    }

    fn text(
        &mut self,
        flow: Option<&str>,
        offset: Option<u64>,
        packet: &Annotated<'_>,
        content: Option<Content>,
    ) -> Result<(), Failure> {
        if let Some(offset) = offset {
            let flow = flow.unwrap_or("stream");
            writeln!(self.out, "{flow}, byte {offset}:")?;
        }
        write!(self.out, "{packet}")?;
        if let Some(content) = content {
            let (arrived, length, digest) = (content.arrived, content.length, content.digest.name());
            writeln!(self.out, "      content: {arrived} of {length} bytes, digest: {digest}")?;
        }
        Ok(writeln!(self.out)?)
    }
}

impl From<Header> for HeaderReport {
    fn from(header: Header) -> Self {
        let Header { id, tag, length } = header;
        Self { tag: tag.into(), name: Tag::name(tag), id, length }
    }
}

impl<'a> From<&Field<'a>> for FieldReport<'a> {
    fn from(field: &Field<'a>) -> Self {
        let value = match field.value {
            FieldValue::Number(number) => Value::Number(number),
            FieldValue::Unsigned(number) => Value::Digits(number.to_string()),
            FieldValue::Signed(number) => Value::Digits(number.to_string()),
            FieldValue::Text(text) => Value::Text(text),
            FieldValue::Bytes(bytes) => Value::Digits(to_hex(bytes)),
        };
        Self { offset: field.offset, length: field.length, name: field.name, value }
    }
}

fn to_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
