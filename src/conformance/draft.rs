//! Packets that may be wrong: each field can say what it wants.

use crate::wire::{Algorithm, Digest, Download, PieceKind, Tag};

/// A header with any tag and any Length, and what follows it.
#[must_use]
pub fn packet(id: u8, tag: u8, length: u32, value: &[u8]) -> Vec<u8> {
    let [a, b, c, d] = length.to_be_bytes();
    let mut packet = vec![id, tag, a, b, c, d];
    packet.extend_from_slice(value);
    packet
}

/// A packet whose Length is that of its value.
#[must_use]
pub fn framed(id: u8, tag: u8, value: &[u8]) -> Vec<u8> {
    packet(id, tag, u32::try_from(value.len()).unwrap_or(u32::MAX), value)
}

/// An Error packet.
#[must_use]
pub fn error(id: u8, code: u8, message: &[u8]) -> Vec<u8> {
    framed(id, 0xFF, &[&[code], message].concat())
}

/// A Close packet.
#[must_use]
pub fn close(id: u8) -> Vec<u8> {
    framed(id, 0xFE, &[])
}

/// The tag that asks for pieces of this kind.
#[must_use]
pub fn download_tag(kind: PieceKind) -> u8 {
    Tag::Download(kind).into()
}

/// An answer with content. It begins as a right one; whoever plays an evil server changes what it wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// Packet id.
    pub id: u8,
    /// Tag.
    pub tag: u8,
    /// Length; what it should be where there is none.
    pub length: Option<u32>,
    /// Metadata length; what it should be where there is none.
    pub metadata_length: Option<u32>,
    /// Piece number.
    pub number: u32,
    /// Offset in the task.
    pub offset: u64,
    /// The length of the content; that of `content` where there is none.
    pub piece_length: Option<u64>,
    /// Digest.
    pub digest: Vec<u8>,
    /// Digest length; that of `digest` where there is none.
    pub digest_length: Option<u32>,
    /// Parent id.
    pub parent_id: Vec<u8>,
    /// Parent id length; that of `parent_id` where there is none.
    pub parent_id_length: Option<u32>,
    /// Traffic type.
    pub traffic_type: u8,
    /// Cost.
    pub cost: u64,
    /// Created at.
    pub created_at: i64,
    /// Bytes of the value after the last field.
    pub appended: Vec<u8>,
    /// Content bytes.
    pub content: Vec<u8>,
    /// Bytes after the content.
    pub trailing: Vec<u8>,
    /// Whether integers of more than one byte are little-endian, which is wrong.
    pub little_endian: bool,
}

impl Draft {
    /// The right answer with packet id `id` to `download`, whose piece begins at `offset` and has this content.
    #[must_use]
    pub fn new(id: u8, download: Download, offset: u64, content: &[u8]) -> Self {
        Self {
            id,
            tag: Tag::Content(download.kind).into(),
            length: None,
            metadata_length: None,
            number: download.number,
            offset,
            piece_length: None,
            digest: Digest::of(Algorithm::Crc32, content).to_text().as_str().into(),
            digest_length: None,
            parent_id: b"conformance".to_vec(),
            parent_id_length: None,
            traffic_type: 1,
            cost: 0,
            created_at: 1_700_000_000,
            appended: Vec::new(),
            content: content.to_vec(),
            trailing: Vec::new(),
            little_endian: false,
        }
    }

    /// The packet, the content bytes and what trails them.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.packet();
        bytes.extend_from_slice(&self.content);
        bytes.extend_from_slice(&self.trailing);
        bytes
    }

    /// The packet alone.
    #[must_use]
    pub fn packet(&self) -> Vec<u8> {
        let mut fields = Vec::new();
        let length_of = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        fields.extend(self.u32(self.number));
        fields.extend(self.u64(self.offset));
        fields.extend(self.u64(self.piece_length.unwrap_or(self.content.len() as u64)));
        fields.extend(self.u32(self.digest_length.unwrap_or(length_of(&self.digest))));
        fields.extend_from_slice(&self.digest);
        fields.extend(self.u32(self.parent_id_length.unwrap_or(length_of(&self.parent_id))));
        fields.extend_from_slice(&self.parent_id);
        fields.push(self.traffic_type);
        fields.extend(self.u64(self.cost));
        fields.extend(self.u64(self.created_at.cast_unsigned()));
        fields.extend_from_slice(&self.appended);
        let metadata_length = length_of(&fields);
        let mut packet = vec![self.id, self.tag];
        packet.extend(self.u32(self.length.unwrap_or(metadata_length + 4)));
        packet.extend(self.u32(self.metadata_length.unwrap_or(metadata_length)));
        packet.extend(fields);
        packet
    }

    fn u32(&self, value: u32) -> [u8; 4] {
        if self.little_endian { value.to_le_bytes() } else { value.to_be_bytes() }
    }

    fn u64(&self, value: u64) -> [u8; 8] {
        if self.little_endian { value.to_le_bytes() } else { value.to_be_bytes() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Message, Packet, TaskId};

    #[test]
    fn an_unchanged_draft_is_right() {
        let download = Download { kind: PieceKind::Cache, task_id: TaskId::from_sha256([7; 32]), number: 3 };
        let draft = Draft::new(9, download, 12, b"content");
        let bytes = draft.encode();
        let (packet, rest) = Packet::decode(&bytes).unwrap();
        let Message::Content(PieceKind::Cache, metadata) = packet.message else { panic!("{packet:?}") };
        assert_eq!((packet.id, metadata.number, metadata.offset, rest), (9, 3, 12, b"content".as_slice()));
    }
}
