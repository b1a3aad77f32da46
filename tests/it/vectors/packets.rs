//! Vectors of single packets.

mod content;
mod order;
mod other;
mod request;
mod text;

use super::model::{Layout, Vector};

pub(super) const TASK: &str = "a3f1c9e07b5d2846f0e1d2c3b4a5968778695a4b3c2d1e0f9182736455463728";
pub(super) const CRC: &str = "crc32:3421780262";
const SHA256: &str = "sha256:15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225";

fn download(id: u8, tag: u8, task_id: &str, number: u32) -> Layout {
    Layout::header(id, tag, 68).text("task_id", task_id).u32("number", number)
}

fn error(id: u8, code: u8, message: &str) -> Layout {
    let length = 1 + u32::try_from(message.len()).unwrap();
    Layout::header(id, 0xFF, length).u8("code", code).text("message", message)
}

/// Metadata with everything that can be chosen.
#[derive(Clone, Copy)]
struct Content<'a> {
    tag: u8,
    number: u32,
    offset: u64,
    length: u64,
    digest: &'a str,
    parent_id: &'a str,
    traffic_type: u8,
    cost: u64,
    created_at: i64,
}

const CONTENT: Content<'_> = Content {
    tag: 0x01,
    number: 1,
    offset: 4_194_304,
    length: 9,
    digest: CRC,
    parent_id: "10.0.0.7-peer-a",
    traffic_type: 1,
    cost: 2,
    created_at: 1_767_225_600,
};

impl Content<'_> {
    fn fields(&self) -> u32 {
        u32::try_from(45 + self.digest.len() + self.parent_id.len()).unwrap()
    }

    /// With a metadata length and a Length of one's own.
    fn lying(&self, length: u32, metadata_length: u32) -> Layout {
        let count = |text: &str| u32::try_from(text.len()).unwrap();
        Layout::header(5, self.tag, length)
            .u32("metadata_length", metadata_length)
            .u32("number", self.number)
            .u64("offset", self.offset)
            .u64("piece_length", self.length)
            .u32("digest_length", count(self.digest))
            .text("digest", self.digest)
            .u32("parent_id_length", count(self.parent_id))
            .text("parent_id", self.parent_id)
            .u8("traffic_type", self.traffic_type)
            .u64("cost", self.cost)
            .i64("created_at", self.created_at)
    }

    fn lay(&self) -> Layout {
        self.lying(4 + self.fields(), self.fields())
    }

    fn appended(&self, bytes: u32) -> Layout {
        self.lying(4 + self.fields() + bytes, self.fields() + bytes)
    }
}

/// The begin of metadata up to the piece length, for what goes wrong after it.
fn begun(length: u32) -> Layout {
    Layout::header(5, 0x01, length)
        .u32("metadata_length", length - 4)
        .u32("number", 1)
        .u64("offset", 4_194_304)
        .u64("piece_length", 9)
}

const TAIL: [u8; 17] = [1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 9];

pub(super) fn all() -> Vec<Vector> {
    [
        request::downloads(),
        request::bad_downloads(),
        content::contents(),
        content::bad_contents(),
        text::texts(),
        other::others(),
        other::errors(),
        order::order(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
