//! Packets from bytes that arrive in parts.

use super::{DecodeError, Header, Packet, limits};
use crate::canary::planted;

/// Decodes packets from a stream that may be split anywhere.
///
/// Memory follows what has arrived, at most twice that: a header is judged alone, and then no more than the packet that
/// it announces is held, [`limits::MAX_PACKET_LEN`] bytes. A packet that is whole in the input is decoded where it lies.
//= VTX-FRM-009
#[derive(Debug, Default)]
pub struct Decoder {
    /// What has arrived of the packet that is incomplete.
    partial: Vec<u8>,
    /// Whether `partial` is a packet that was handed out, and is forgotten at the next call.
    spent: bool,
    /// Bytes of a rejected packet's value that are still to be passed over.
    skip: usize,
    /// The id of the last packet whose header was complete.
    id: u8,
    /// What ended the stream of packets for good.
    broken: Option<DecodeError>,
}

impl Decoder {
    /// A decoder between two packets.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes from the front of `input` up to the end of one packet and returns it; `None` when `input` ends first.
    ///
    /// Bytes after the packet stay in `input`: after a Content packet they are the content of the piece.
    ///
    /// # Errors
    /// [`DecodeError`]. Where it [is recoverable](DecodeError::is_recoverable), the rest of that packet is passed over
    /// by the next calls; otherwise every later call fails in the same way.
    pub fn decode<'d, 'i: 'd>(&'d mut self, input: &mut &'i [u8]) -> Result<Option<Packet<'d>>, DecodeError> {
        if let Some(error) = self.broken {
            return Err(error);
        }
        if std::mem::take(&mut self.spent) {
            self.partial.clear();
        }
        self.pass_over(input);
        if self.skip > 0 {
            return Ok(None);
        }
        if self.partial.is_empty()
            && let Some((head, _)) = input.split_first_chunk::<{ limits::HEADER_LEN }>()
        {
            let header = self.judge(*head, input)?;
            if let Some((packet, rest)) = input.split_at_checked(packet_len(header)) {
                *input = rest;
                let value = packet.get(limits::HEADER_LEN..).unwrap_or_default();
                return Packet::of(header, value).map(Some);
            }
        }
        self.decode_partial(input)
    }

    /// The stream has ended here.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] in the middle of a packet; not in the middle of one that was rejected before.
    pub fn finish(&self) -> Result<(), DecodeError> {
        if self.spent || self.partial.is_empty() {
            return Ok(());
        }
        let have = self.partial.len();
        let need = match self.partial.first_chunk() {
            Some(head) => packet_len(Header::decode(*head)),
            None => limits::HEADER_LEN,
        };
        Err(DecodeError::Truncated { have, need })
    }

    /// Whether the stream is between two packets: nothing of another has arrived, nor is one being passed over.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        (self.spent || self.partial.is_empty()) && self.skip == 0
    }

    /// The id of the packet that was decoded or rejected last, for the answer to it; 0 before the first header.
    #[must_use]
    pub fn packet_id(&self) -> u8 {
        self.id
    }

    /// Gathers a packet that arrives in parts.
    fn decode_partial<'d>(&'d mut self, input: &mut &[u8]) -> Result<Option<Packet<'d>>, DecodeError> {
        if !self.gather(input, limits::HEADER_LEN) {
            return Ok(None);
        }
        let Some(head) = self.partial.first_chunk() else { return Ok(None) };
        let header = Header::decode(*head);
        if let Err(error) = self.judge_header(header) {
            self.partial.clear();
            self.pass_over(input);
            return Err(error);
        }
        if !self.gather(input, packet_len(header)) {
            if planted("split-packet-lost") {
                self.partial.clear();
            }
            return Ok(None);
        }
        self.spent = true;
        let value = self.partial.get(limits::HEADER_LEN..).unwrap_or_default();
        Packet::of(header, value).map(Some)
    }

    /// Judges the header at the front of `input`, and passes over it where it is no good.
    fn judge(&mut self, head: [u8; limits::HEADER_LEN], input: &mut &[u8]) -> Result<Header, DecodeError> {
        let header = Header::decode(head);
        self.judge_header(header).inspect_err(|_| {
            *input = input.get(limits::HEADER_LEN..).unwrap_or_default();
            self.pass_over(input);
        })?;
        Ok(header)
    }

    fn judge_header(&mut self, header: Header) -> Result<(), DecodeError> {
        self.id = header.id;
        //= VTX-FRM-013
        header.check().inspect_err(|error| {
            if error.is_recoverable() {
                self.skip = header.length as usize;
            } else {
                self.broken = Some(*error);
            }
        })
    }

    /// Moves bytes from `input` until `need` are held, if there are so many.
    fn gather(&mut self, input: &mut &[u8], need: usize) -> bool {
        let missing = need.saturating_sub(self.partial.len());
        let (taken, rest) = input.split_at(missing.min(input.len()));
        //= VTX-FRM-016
        self.partial.extend_from_slice(taken);
        *input = rest;
        self.partial.len() >= need
    }

    fn pass_over(&mut self, input: &mut &[u8]) {
        let (passed, rest) = input.split_at(self.skip.min(input.len()));
        self.skip -= passed.len();
        *input = rest;
    }
}

/// Bytes of the packet that a checked header begins.
fn packet_len(header: Header) -> usize {
    limits::HEADER_LEN + header.length as usize
}
