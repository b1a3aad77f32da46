//! What the targets share.

pub mod world;

use bytes::Bytes;

/// Cuts `bytes` into at most seventeen parts, of any size, empty ones too. The cuts follow from the bytes, so a corpus of plain
/// bytes, like the specification's vectors, can be used as it is.
///
/// No more parts than that: each costs as much as a whole short input does, and inputs of hundreds of parts are few a second.
pub fn split(bytes: &[u8]) -> Vec<Bytes> {
    let mut draw = Draw::of(bytes);
    let mut rest = Bytes::copy_from_slice(bytes);
    let mut parts = Vec::new();
    for _ in 0..draw.below(17) {
        // Mostly a few bytes, so that a field is cut, too; at times any part of what is left.
        let most = if draw.below(4) == 0 { rest.len() } else { rest.len().min(7) };
        parts.push(rest.split_to(draw.below(most + 1)));
    }
    parts.push(rest);
    parts
}

/// Choices that follow from some bytes alone.
pub struct Draw(u64);

impl Draw {
    /// Begins with a hash (FNV-1a) of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        let hash = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        Self(bytes.iter().fold(0xcbf2_9ce4_8422_2325, hash))
    }

    /// From 0 up to, not including, `end`, which is at least 1.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }
}
