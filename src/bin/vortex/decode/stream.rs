//! Packets and content in the bytes of one direction of a connection, which come in parts.

use vortex_p2p::wire::{
    Annotated, DecodeError, DigestClaim, DigestError, Hasher, Header, Message, Packet, annotate, limits,
};

/// One packet of a stream.
pub(super) struct Item<'a> {
    /// Where it begins, in bytes from the begin of the stream.
    pub(super) offset: u64,
    pub(super) packet: Annotated<'a>,
    /// What followed a Content packet.
    pub(super) content: Option<Content>,
    /// In place of the packet's own verdict: the bytes of its value were not looked at.
    pub(super) error: Option<DecodeError>,
}

/// The content bytes after a Content packet, summed up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) length: u64,
    pub(super) arrived: u64,
    pub(super) digest: Verdict,
}

/// Whether content has the digest of its metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Match,
    Mismatch,
    Incomplete,
    None,
    UnknownAlgorithm,
    Malformed,
}

impl Verdict {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Match => "match",
            Self::Mismatch => "mismatch",
            Self::Incomplete => "incomplete",
            Self::None => "none",
            Self::UnknownAlgorithm => "unknown-algorithm",
            Self::Malformed => "malformed",
        }
    }
}

/// Finds the packets of a stream. Holds one packet at most; content is hashed as it passes.
#[derive(Default)]
pub(super) struct Explainer {
    packet: Vec<u8>,
    state: State,
    /// Where the packet begins, and how much of the stream was taken.
    start: u64,
    taken: u64,
}

#[derive(Default)]
enum State {
    #[default]
    Packet,
    /// The rest of a refused packet's value.
    Skip(u64),
    Content {
        length: u64,
        left: u64,
        claim: Result<Box<(DigestClaim, Hasher)>, DigestError>,
    },
    /// Where the next packet begins is not known.
    Lost,
}

impl Explainer {
    /// Takes the next bytes and hands on each packet that they complete.
    pub(super) fn push<E>(
        &mut self,
        mut input: &[u8],
        sink: &mut impl FnMut(Item<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        while !input.is_empty() {
            match &mut self.state {
                State::Packet => {
                    let need = self.need().unwrap_or(limits::HEADER_LEN);
                    let missing = need.saturating_sub(self.packet.len()).min(input.len());
                    let taken = self.taken_from(&mut input, missing as u64);
                    self.packet.extend_from_slice(taken);
                    self.judge(sink)?;
                }
                State::Skip(left) => {
                    let count = (*left).min(input.len() as u64);
                    *left -= count;
                    if *left == 0 {
                        self.state = State::Packet;
                    }
                    self.taken_from(&mut input, count);
                }
                State::Content { left, claim, .. } => {
                    let count = (*left).min(input.len() as u64);
                    *left -= count;
                    let done = *left == 0;
                    let bytes = input.get(..usize::try_from(count).unwrap_or_default()).unwrap_or_default();
                    if let Ok(claimed) = claim {
                        claimed.1.update(bytes);
                    }
                    self.taken_from(&mut input, count);
                    if done {
                        self.content_ends(sink)?;
                    }
                }
                State::Lost => return Ok(()),
            }
        }
        Ok(())
    }

    /// The stream has ended: hands on what is incomplete.
    pub(super) fn finish<E>(&mut self, sink: &mut impl FnMut(Item<'_>) -> Result<(), E>) -> Result<(), E> {
        match self.state {
            State::Packet if !self.packet.is_empty() => self.emit(None, None, sink),
            State::Content { .. } => self.content_ends(sink),
            _ => Ok(()),
        }
    }

    /// Bytes that the packet has in all, as far as is known.
    fn need(&self) -> Option<usize> {
        let header = Header::decode(*self.packet.first_chunk()?);
        Some(limits::HEADER_LEN + usize::try_from(header.length).ok()?)
    }

    fn taken_from<'a>(&mut self, input: &mut &'a [u8], count: u64) -> &'a [u8] {
        let (taken, rest) = input.split_at(usize::try_from(count).unwrap_or(input.len()).min(input.len()));
        self.taken += taken.len() as u64;
        *input = rest;
        taken
    }

    fn judge<E>(&mut self, sink: &mut impl FnMut(Item<'_>) -> Result<(), E>) -> Result<(), E> {
        let Some(head) = self.packet.first_chunk() else { return Ok(()) };
        let header = Header::decode(*head);
        if let Err(error) = header.check() {
            self.state = match u64::from(header.length) {
                0 => State::Packet,
                length if error.is_recoverable() => State::Skip(length),
                _ => State::Lost,
            };
            return self.emit(None, Some(error), sink);
        }
        if Some(self.packet.len()) != self.need() {
            return Ok(());
        }
        let Ok(Packet { message: Message::Content(_, metadata), .. }) = Packet::decode_exact(&self.packet)
        else {
            return self.emit(None, None, sink);
        };
        let length = u64::from(metadata.length);
        let claim = DigestClaim::parse(metadata.digest.as_str());
        let claim = claim.map(|claim| Box::new((claim, Hasher::new(claim.algorithm()))));
        self.state = State::Content { length, left: length, claim };
        if length == 0 { self.content_ends(sink) } else { Ok(()) }
    }

    fn content_ends<E>(&mut self, sink: &mut impl FnMut(Item<'_>) -> Result<(), E>) -> Result<(), E> {
        let State::Content { length, left, claim } = std::mem::take(&mut self.state) else { return Ok(()) };
        let digest = match claim.map(|claimed| claimed.0.matches(&claimed.1.finish())) {
            _ if left > 0 => Verdict::Incomplete,
            Ok(true) => Verdict::Match,
            Ok(false) => Verdict::Mismatch,
            Err(DigestError::Empty) => Verdict::None,
            Err(DigestError::Malformed) => Verdict::Malformed,
            Err(DigestError::UnknownAlgorithm) => Verdict::UnknownAlgorithm,
        };
        self.emit(Some(Content { length, arrived: length - left, digest }), None, sink)
    }

    fn emit<E>(
        &mut self,
        content: Option<Content>,
        error: Option<DecodeError>,
        sink: &mut impl FnMut(Item<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let packet = annotate(&self.packet);
        let result = sink(Item { offset: self.start, packet, content, error });
        self.packet.clear();
        self.start = self.taken + if let State::Skip(left) = self.state { left } else { 0 };
        result
    }
}
