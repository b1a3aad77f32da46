//! ```text
//!  byte of the value   0                                   64            68
//!                      +-----------------...---------------+-------------+
//!                      |  task id, 64 characters of ASCII  |   number    |
//!                      +-----------------...---------------+-------------+
//! ```

use super::{BadTaskId, DecodeError, Header, PieceKind, Tag, TaskId, limits};

/// A request for one piece of one task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Download {
    /// Which kind of task.
    pub kind: PieceKind,
    /// Which task.
    pub task_id: TaskId,
    /// Which piece, from 0. Every number is well-formed.
    pub number: u32,
}

impl Download {
    /// Bytes of the whole packet.
    pub const PACKET_LEN: usize = limits::HEADER_LEN + limits::DOWNLOAD_LEN as usize;

    /// The whole packet, with `id` as its packet id.
    #[must_use]
    #[inline]
    pub fn encode(&self, id: u8) -> [u8; Self::PACKET_LEN] {
        //= VTX-REQ-001
        let header = Header { id, tag: Tag::Download(self.kind), length: limits::DOWNLOAD_LEN };
        let mut packet = [0; Self::PACKET_LEN];
        let (head, value) = packet.split_at_mut(limits::HEADER_LEN);
        head.copy_from_slice(&header.encode());
        let (task_id, number) = value.split_at_mut(TaskId::LEN);
        task_id.copy_from_slice(self.task_id.as_bytes());
        number.copy_from_slice(&self.number.to_be_bytes());
        packet
    }

    /// Reads a value. Its Length was checked with the header.
    #[inline]
    pub(super) fn decode(kind: PieceKind, value: &[u8]) -> Result<Self, DecodeError> {
        let split = value.split_first_chunk::<{ TaskId::LEN }>();
        let parts = split.and_then(|(task_id, rest)| Some((task_id, <[u8; 4]>::try_from(rest).ok()?)));
        let Some((task_id, number)) = parts else {
            let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
            return Err(DecodeError::BadLength { tag: Tag::Download(kind), length });
        };
        // Not `map_err`: it would move the 64 bytes once more.
        let task_id = match TaskId::from_bytes(task_id) {
            Ok(task_id) => task_id,
            Err(BadTaskId::Byte { at, byte }) => return Err(DecodeError::BadTaskId { at, byte }),
            Err(BadTaskId::Length { .. }) => return Err(DecodeError::BadTaskId { at: 0, byte: 0 }),
        };
        //= VTX-REQ-004
        Ok(Self { kind, task_id, number: u32::from_be_bytes(number) })
    }
}
