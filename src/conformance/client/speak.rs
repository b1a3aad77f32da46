//! How a server speaks on a lane, and hears.

use super::stage::{Acting, After};
use crate::conformance::lane::{Event, Lane};
use bytes::BytesMut;
use quinn::VarInt;

/// The server's direction.
pub(super) trait Speak: Send {
    /// Sends. A client that has stopped listening is watched elsewhere.
    fn say(&mut self, acting: &Acting, bytes: &[u8]) -> impl Future<Output = ()> + Send;
    /// The answer is complete.
    fn done(&mut self) -> After;
    fn finish(&mut self) -> impl Future<Output = ()> + Send;
    fn reset(&mut self, code: u32) -> After;
}

impl Speak for Lane {
    async fn say(&mut self, acting: &Acting, bytes: &[u8]) {
        self.send(&acting.runtime, bytes, acting.waits.soon).await;
    }
    fn done(&mut self) -> After {
        After::Next
    }
    async fn finish(&mut self) {
        Lane::finish(self).await;
    }
    fn reset(&mut self, _code: u32) -> After {
        After::Closed
    }
}

/// The sending half of a QUIC stream.
pub(super) struct Sending<'a>(pub(super) &'a mut quinn::SendStream);

impl Speak for Sending<'_> {
    async fn say(&mut self, _acting: &Acting, bytes: &[u8]) {
        let _ = self.0.write_all(bytes).await;
    }
    fn done(&mut self) -> After {
        let _ = self.0.finish();
        After::Ended
    }
    async fn finish(&mut self) {
        let _ = self.0.finish();
    }
    fn reset(&mut self, code: u32) -> After {
        let _ = self.0.reset(VarInt::from_u32(code));
        After::Ended
    }
}

/// A lane and what was read of it.
pub(super) struct Heard {
    pub(super) lane: Lane,
    pub(super) unread: BytesMut,
}

impl Heard {
    /// Whether `count` bytes are there.
    pub(super) async fn fill(&mut self, acting: &Acting, count: usize) -> bool {
        while self.unread.len() < count {
            match self.lane.event(&acting.runtime, acting.waits.soon * 8).await {
                Event::Bytes(bytes) => self.unread.extend_from_slice(&bytes),
                _ => return false,
            }
        }
        true
    }
}
