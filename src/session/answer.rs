//! An answer with content, as its server sends it.

use crate::wire::{Digest, Hasher, Metadata, PieceKind, PieceLength, limits};
use bytes::{Bytes, BytesMut};

/// What has to be done next to send an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnswerStep {
    /// Send these bytes: the Content packet.
    Send(Bytes),
    /// Read content of the piece and send it.
    Content {
        /// Where, in bytes from the begin of the piece.
        offset: u32,
        /// How many bytes are left from there.
        length: u32,
    },
    /// Everything was sent. On QUIC the stream is finished now.
    Done,
}

/// One answer with content: the packet, then exactly the piece's bytes.
#[derive(Debug)]
pub struct Answer {
    head: Option<Bytes>,
    length: u32,
    sent: u32,
    digest: Digest,
    /// Checks the content on its way out, where it passes through here at all.
    hasher: Option<Hasher>,
}

impl Answer {
    /// The answer with packet id `id`, which is that of the request, and a piece of this kind, whose content has `digest`.
    #[must_use]
    pub fn new(id: u8, kind: PieceKind, metadata: &Metadata<'_>, digest: Digest) -> Self {
        let text = metadata.digest.as_str().len() + metadata.parent_id.as_str().len();
        let mut head = BytesMut::with_capacity(limits::HEADER_LEN + limits::MIN_METADATA_LEN as usize + text);
        //= VTX-FRM-006
        //= VTX-TAG-004
        metadata.encode(id, kind, &mut head);
        Self::with_head(head.freeze(), metadata.length, digest)
    }

    /// An answer that begins with `head` in place of a Content packet, as over gRPC.
    #[must_use]
    pub fn with_head(head: Bytes, length: PieceLength, digest: Digest) -> Self {
        Self {
            head: Some(head),
            length: length.get(),
            sent: 0,
            digest,
            hasher: Some(Hasher::new(digest.algorithm())),
        }
    }

    /// What to do next. The Content packet is handed out once.
    pub fn step(&mut self) -> AnswerStep {
        //= VTX-CNT-017
        match self.head.take() {
            Some(head) => AnswerStep::Send(head),
            None if self.sent < self.length => {
                AnswerStep::Content { offset: self.sent, length: self.length - self.sent }
            }
            None => AnswerStep::Done,
        }
    }

    /// Notes `content`, the next bytes of the piece, as sent, and checks them.
    ///
    /// # Errors
    /// [`Corrupt`] when these are the last bytes and the content does not have its digest, or when they are more than
    /// the piece has. The answer has to be broken off.
    pub fn content(&mut self, content: &[u8]) -> Result<(), Corrupt> {
        if let Some(hasher) = &mut self.hasher {
            hasher.update(content);
        }
        self.advance(content.len() as u64)?;
        if self.sent == self.length
            && let Some(hasher) = self.hasher.take()
            && hasher.finish() != self.digest
        {
            return Err(Corrupt);
        }
        Ok(())
    }

    /// Notes `count` bytes as sent that did not pass through here (`sendfile`), and so can't be checked.
    ///
    /// # Errors
    /// [`Corrupt`] when they are more than the piece has.
    pub fn passed(&mut self, count: u64) -> Result<(), Corrupt> {
        self.hasher = None;
        self.advance(count)
    }

    fn advance(&mut self, count: u64) -> Result<(), Corrupt> {
        match u32::try_from(count).ok().and_then(|count| self.sent.checked_add(count)) {
            Some(sent) if sent <= self.length => {
                self.sent = sent;
                Ok(())
            }
            _ => Err(Corrupt),
        }
    }
}

/// The stored bytes do not have the digest, or the length, that they should have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the stored content of the piece is damaged")]
pub struct Corrupt;
