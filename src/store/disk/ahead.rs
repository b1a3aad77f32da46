//! What is known of the pieces that are likely to be asked for next.
//!
//! The index is read on a thread that may block, and to tell a thread, and to be told by it, costs more than the look itself. So a look
//! takes along what the index has of the pieces that follow, and requests for those need no thread.

use crate::store::Provenance;
use std::collections::BTreeMap;

/// Pieces that a look takes along, beyond the one that is asked for. What it costs to read them is little beside a thread's wake-up,
/// and they are in vain where pieces are asked for in no order.
pub(super) const AHEAD: u32 = 16;

/// Pieces of one task that are held: at most one and [`AHEAD`] beyond it, some 200 bytes each.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    records: BTreeMap<u32, Provenance>,
    /// How often what the index has of the task's pieces has changed.
    changes: u64,
}

impl Ahead {
    pub(super) fn get(&self, number: u32) -> Option<&Provenance> {
        self.records.get(&number)
    }

    /// To be asked for before the index is read, and handed to [`learn`](Self::learn) after it.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    /// Takes over what the index had, unless it has changed since `changes` was asked for.
    pub(super) fn learn(&mut self, changes: u64, records: BTreeMap<u32, Provenance>) {
        if changes == self.changes {
            self.records = records;
        }
    }

    /// The index has changed. To be called after it has, and before that is acted upon.
    pub(super) fn forget(&mut self) {
        self.changes += 1;
        self.records.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::ParentId;
    use crate::wire::{Algorithm, Digest};

    #[test]
    fn what_was_read_before_a_change_is_not_believed_after_it() {
        let digest = Digest::of(Algorithm::Crc32, b"");
        let record = Provenance { digest, parent_id: ParentId::default(), cost: 0, created_at: 0 };
        let records = BTreeMap::from([(7, record.clone())]);
        let mut ahead = Ahead::default();
        let before = ahead.changes();
        ahead.learn(before, records.clone());
        assert_eq!(ahead.get(7), Some(&record));
        ahead.forget();
        assert_eq!(ahead.get(7), None);
        ahead.learn(before, records.clone());
        assert_eq!(ahead.get(7), None);
        ahead.learn(ahead.changes(), records);
        assert_eq!(ahead.get(7), Some(&record));
        ahead.learn(ahead.changes(), BTreeMap::new());
        assert_eq!(ahead.get(7), None, "no more is kept than was read last");
    }
}
