//! A conversation with the server under test, read with suspicion: whoever finds a requirement broken that the case is not
//! about names it.

use super::Subject;
use crate::conformance::case::{Shown, blame, fail, or_blame};
use crate::conformance::lane::{Event, Lane, hex};
use bytes::{Bytes, BytesMut};
use std::time::Duration;

/// A conversation on one lane.
pub(super) struct Talk {
    pub(super) subject: Subject,
    pub(super) lane: Lane,
    unread: BytesMut,
    /// What ended the server's direction.
    ended: Option<Event>,
    /// Whether content was read: what follows it shows whether there was more of it than it said.
    had_content: bool,
}

/// A packet that the server sent, with the content that follows it.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) id: u8,
    pub(super) tag: u8,
    pub(super) length: u32,
    pub(super) value: Bytes,
    /// What the value says, of a Content packet.
    pub(super) metadata: Option<Metadata>,
    pub(super) content: Bytes,
}

/// The fields of a Content packet.
#[derive(Debug, Clone)]
pub(super) struct Metadata {
    pub(super) length_field: u32,
    pub(super) number: u32,
    pub(super) offset: u64,
    pub(super) length: u64,
    pub(super) digest: Bytes,
    pub(super) parent_id: Bytes,
    pub(super) traffic_type: u8,
    /// Bytes of the value after the last field.
    pub(super) appended: usize,
}

impl Answer {
    pub(super) fn is_content(&self) -> bool {
        self.metadata.is_some()
    }

    /// The code of an Error packet.
    pub(super) fn error_code(&self) -> Option<u8> {
        (self.tag == 0xFF).then(|| self.value.first().copied()).flatten()
    }

    /// The message of an Error packet.
    pub(super) fn error_message(&self) -> &[u8] {
        self.value.get(1..).unwrap_or_default()
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.error_code(), &self.metadata) {
            (Some(code), _) => {
                let message = String::from_utf8_lossy(self.error_message());
                write!(f, "Error {code} ({})", message.chars().take(120).collect::<String>())
            }
            (None, Some(metadata)) => {
                write!(f, "content of piece {}, {} bytes", metadata.number, metadata.length)
            }
            (None, None) => {
                write!(f, "a packet with tag 0x{:02X} and Length {}", self.tag, self.length)
            }
        }
    }
}

impl Talk {
    pub(super) fn new(subject: Subject, lane: Lane) -> Self {
        Self { subject, lane, unread: BytesMut::new(), ended: None, had_content: false }
    }

    /// Sends; what the server makes of it is for the case to find out.
    pub(super) async fn send(&mut self, bytes: &[u8]) {
        let soon = self.subject.target.waits.soon;
        self.lane.send(&self.subject.runtime, bytes, soon).await;
    }

    pub(super) async fn finish(&mut self) {
        self.lane.finish().await;
    }

    /// Waits for more bytes; `false` at the end, or when nothing arrives.
    async fn more(&mut self, within: Duration) -> bool {
        if self.ended.is_some() {
            return false;
        }
        match self.lane.event(&self.subject.runtime, within).await {
            Event::Bytes(bytes) => {
                self.unread.extend_from_slice(&bytes);
                true
            }
            Event::Silence => false,
            end => {
                self.ended = Some(end);
                false
            }
        }
    }

    async fn have(&mut self, count: usize, within: Duration) -> bool {
        while self.unread.len() < count {
            if !self.more(within).await {
                return false;
            }
        }
        true
    }

    /// Whether a byte arrives.
    pub(super) async fn begins(&mut self) -> bool {
        self.have(1, self.subject.target.waits.soon).await
    }

    /// What ended the server's direction, if anything has.
    pub(super) fn end_state(&self) -> Event {
        self.ended.clone().unwrap_or(Event::Silence)
    }

    fn state(&self) -> String {
        self.end_state().to_string()
    }

    /// The next answer, begun within `within`; `None` when there is none.
    pub(super) async fn answer_within(&mut self, within: Duration) -> Shown<Option<Answer>> {
        let soon = self.subject.target.waits.soon;
        if !self.have(1, within).await {
            return Ok(None);
        }
        if !self.have(6, soon).await {
            return blame("VTX-FRM-001", format!("{} bytes, no whole header", self.unread.len()));
        }
        let header = self.unread.split_to(6);
        let &[id, tag, a, b, c, d] = header.as_ref() else { return Ok(None) };
        let length = u32::from_be_bytes([a, b, c, d]);
        let is_content = matches!(tag, 0x01 | 0x03 | 0x05 | 0x07);
        let unheard_of = matches!(tag, 0x00 | 0x02 | 0x04 | 0x06 | 0x08..=0xEF) || length > 16_384;
        if unheard_of && self.had_content {
            return blame("VTX-CNT-017", format!("after the content: {}", hex(&header)));
        }
        if length > 16_384 {
            let swapped = length.swap_bytes();
            if swapped <= 16_384 {
                return blame("VTX-FRM-003", format!("Length {length}, in little-endian {swapped}"));
            }
            let id = if is_content { "VTX-FRM-004" } else { "VTX-FRM-001" };
            return blame(id, format!("a packet with tag 0x{tag:02X} and Length {length}"));
        }
        let length_usize = length as usize;
        if is_content {
            return self.content_answer(id, tag, length).await.map(Some);
        }
        if !self.have(length_usize, soon).await {
            let seen = format!("{} bytes of a value of {length}, then {}", self.unread.len(), self.state());
            return blame("VTX-FRM-001", seen);
        }
        let value = self.unread.split_to(length_usize).freeze();
        Ok(Some(Answer { id, tag, length, value, metadata: None, content: Bytes::new() }))
    }

    async fn content_answer(&mut self, id: u8, tag: u8, length: u32) -> Shown<Answer> {
        let soon = self.subject.target.waits.soon;
        if !self.have(4, soon).await {
            return blame("VTX-FRM-001", "a Content packet without a value");
        }
        let metadata_length = self.unread.as_ref().first_chunk().copied().map_or(0, u32::from_be_bytes);
        if metadata_length != length.wrapping_sub(4) {
            // Whichever of the two is plausible tells which is wrong.
            let plausible = (45..=16_380).contains(&metadata_length);
            self.have(metadata_length.min(16_380) as usize + 4, soon).await;
            let content = self.unread.get(16..24).and_then(|bytes| bytes.first_chunk().copied());
            let content = content.map_or(0, u64::from_be_bytes);
            let of_content = u64::from(metadata_length) + 4 + content == u64::from(length);
            let seen = format!("Length {length} and metadata length {metadata_length}");
            return match plausible {
                true if of_content || length == metadata_length + 10 => blame("VTX-FRM-004", seen),
                _ => blame("VTX-CNT-002", seen),
            };
        }
        if !self.have(length as usize, soon).await {
            return blame("VTX-FRM-001", format!("{} bytes of a value of {length}", self.unread.len()));
        }
        let value = self.unread.split_to(length as usize).freeze();
        let Some(metadata) = parse(&value) else {
            return blame("VTX-CNT-001", format!("a value whose fields do not fit: {}", hex(&value)));
        };
        if metadata.length > 1 << 30 {
            let swapped = metadata.length.swap_bytes();
            let id = if swapped <= 1 << 30 { "VTX-FRM-003" } else { "VTX-CNT-001" };
            return blame(id, format!("a piece of {} bytes", metadata.length));
        }
        let content = usize::try_from(metadata.length).unwrap_or(usize::MAX);
        if !self.have(content, soon).await {
            let seen = format!("{} of {content} content bytes, then {}", self.unread.len(), self.state());
            return blame("VTX-CNT-017", seen);
        }
        let content = self.unread.split_to(content).freeze();
        self.had_content = true;
        Ok(Answer { id, tag, length, value, metadata: Some(metadata), content })
    }

    /// The next answer to a request that is well-formed, whatever it is.
    pub(super) async fn answer(&mut self) -> Shown<Answer> {
        match self.answer_within(self.subject.target.waits.soon).await? {
            Some(answer) => Ok(answer),
            None => blame("VTX-REQ-010", format!("no answer, but {}", self.state())),
        }
    }

    /// The answer to a request that arrived together with those before it. Where the connection has ended, `closed` is
    /// broken.
    pub(super) async fn next_answer(&mut self, closed: &'static str) -> Shown<Answer> {
        match self.answer_within(self.subject.target.waits.soon).await? {
            Some(answer) => Ok(answer),
            None if self.ended.is_some() => blame(closed, format!("{} after the answer", self.state())),
            None => blame("VTX-TCP-002", "no answer to a request that arrived with others"),
        }
    }

    /// Content, as the server has to send it: where there is none, the case can't go on.
    pub(super) async fn content(&mut self) -> Shown<(Answer, Metadata)> {
        self.content_or("VTX-REQ-011").await
    }

    /// As [`Talk::content`]; where there is none, `requirement` is broken.
    pub(super) async fn content_or(&mut self, requirement: &'static str) -> Shown<(Answer, Metadata)> {
        match self.answer_within(self.subject.target.waits.soon).await? {
            Some(answer) => match answer.metadata.clone() {
                Some(metadata) => Ok((answer, metadata)),
                None => blame(requirement, format!("{answer} for a piece that is held")),
            },
            None => blame(requirement, format!("no answer, but {}", self.state())),
        }
    }

    /// An Error packet with `code`.
    pub(super) async fn refused(&mut self, code: u8) -> Shown<Answer> {
        match self.answer_within(self.subject.target.waits.soon).await? {
            Some(answer) => expect_code(answer, code),
            None => fail(format!("no answer, but {}", self.state())),
        }
    }

    /// As [`Talk::refused`]; what else arrives breaks `requirement`.
    pub(super) async fn refused_or(&mut self, code: u8, requirement: &'static str) -> Shown<Answer> {
        or_blame(self.refused(code).await, requirement)
    }

    /// What comes next, which should be no bytes: the end, or silence.
    pub(super) async fn end_within(&mut self, within: Duration) -> Event {
        if !self.unread.is_empty() || self.more(within).await {
            return Event::Bytes(self.unread.split().freeze());
        }
        self.end_state()
    }

    /// As [`Talk::end_within`], for an end that is due now.
    pub(super) async fn end(&mut self) -> Event {
        self.end_within(self.subject.target.waits.soon).await
    }

    /// Nothing arrives, and nothing ends, for a moment.
    pub(super) async fn silence(&mut self) -> Shown {
        match self.end_within(self.subject.target.waits.quiet).await {
            Event::Silence => Ok(()),
            other => fail(other.to_string()),
        }
    }

    /// The server ends its direction now, without another byte.
    pub(super) async fn ends(&mut self) -> Shown {
        match self.end().await {
            Event::Fin => Ok(()),
            other => fail(format!("{other} in place of the end")),
        }
    }

    /// The connection ends, in whatever way, without another byte.
    pub(super) async fn closes(&mut self) -> Shown {
        match self.end().await {
            Event::Fin | Event::Lost(..) => Ok(()),
            other => fail(format!("{other} in place of the end of the connection")),
        }
    }

    /// The code of the STOP_SENDING that is due now.
    pub(super) async fn stopped(&mut self) -> Option<u64> {
        self.lane.stopped(&self.subject.runtime, self.subject.target.waits.soon).await
    }
}

/// The answer, if it is an Error packet with `code`. One that no Server may send at all is told apart.
pub(super) fn expect_code(answer: Answer, code: u8) -> Shown<Answer> {
    match answer.error_code() {
        Some(got) if got == code => Ok(answer),
        Some(b' '..) if answer.value.last() == Some(&code) => {
            blame("VTX-ERR-001", format!("the code behind the message: {answer}"))
        }
        Some(0 | 4..) => blame("VTX-ERR-004", answer.to_string()),
        _ => fail(answer.to_string()),
    }
}

/// Reads the fields of a value, in the order of the specification.
fn parse(value: &[u8]) -> Option<Metadata> {
    use bytes::Buf;
    let mut rest = value;
    let text = |rest: &mut &[u8]| {
        let length = usize::try_from(rest.try_get_u32().ok()?).ok()?;
        let (text, after) = rest.split_at_checked(length)?;
        *rest = after;
        Some(Bytes::copy_from_slice(text))
    };
    let length_field = rest.try_get_u32().ok()?;
    let number = rest.try_get_u32().ok()?;
    let offset = rest.try_get_u64().ok()?;
    let length = rest.try_get_u64().ok()?;
    let digest = text(&mut rest)?;
    let parent_id = text(&mut rest)?;
    let traffic_type = rest.try_get_u8().ok()?;
    rest.try_get_u64().ok()?;
    rest.try_get_i64().ok()?;
    let appended = rest.len();
    Some(Metadata { length_field, number, offset, length, digest, parent_id, traffic_type, appended })
}
