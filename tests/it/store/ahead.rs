//! Pieces that are found without a thread that reads the index.

use super::contract::{bytes, provenance};
use super::crash_disk::CrashDisk;
use super::world::{Inline, ready};
use futures_util::FutureExt as _;
use std::io::Cursor;
use std::sync::Arc;
use vortex_p2p::store::disk::{DiskStore, ImportOptions};
use vortex_p2p::store::{ParentId, PieceStore, Provenance, StoreError, StoredPiece, TaskKey};
use vortex_p2p::wire::{Algorithm, Digest, PieceKind, PieceLength};

const PIECES: usize = 40;
const LENGTH: usize = 10;

/// A store with one task, of which nothing was asked yet.
fn world() -> (Arc<Inline>, DiskStore, TaskKey, Vec<u8>) {
    let runtime = Inline::new();
    let store = ready(DiskStore::open(Arc::new(CrashDisk::default()), runtime.clone())).unwrap();
    let content = bytes(PIECES * LENGTH, 1);
    let options = ImportOptions {
        kind: PieceKind::Piece,
        piece_length: Some(PieceLength::try_from(LENGTH as u64).unwrap()),
        algorithm: Algorithm::Crc32,
    };
    let length = content.len() as u64;
    let task = ready(store.import_reader(Cursor::new(content.clone()), length, options)).unwrap();
    (runtime, store, task.key, content.to_vec())
}

/// What is found of a piece at once.
fn at_hand(store: &DiskStore, key: TaskKey, number: u32) -> Option<Result<StoredPiece, StoreError>> {
    store.piece(key.piece(number)).now_or_never()
}

#[test]
fn those_that_follow_one_in_use_are_at_hand() {
    let (runtime, store, key, content) = world();
    let first = ready(store.piece(key.piece(5))).unwrap();
    runtime.hold();
    for number in 5..=21 {
        let found = at_hand(&store, key, number).expect("it is at hand").unwrap();
        let start = number as usize * LENGTH;
        assert_eq!(found.provenance.digest, Digest::of(Algorithm::Crc32, &content[start..start + LENGTH]));
        assert_eq!((found.number, found.span.offset, found.span.length.get()), (number, start as u64, 10));
        assert_eq!(found.content.len(), LENGTH as u64);
    }
    for number in [4, 22, PIECES as u32] {
        assert!(at_hand(&store, key, number).is_none(), "{number}");
    }
    runtime.release();
    // The file is open no longer than somebody uses it.
    drop(first);
    runtime.hold();
    assert!(at_hand(&store, key, 6).is_none());
    runtime.release();
    assert!(matches!(ready(store.piece(key.piece(PIECES as u32))), Err(StoreError::Missing(_))));
}

#[test]
fn what_has_changed_is_looked_up_anew() {
    let (runtime, store, key, _) = world();
    let in_use = ready(store.piece(key.piece(0))).unwrap();
    assert_eq!(in_use.provenance.parent_id, ParentId::default());
    ready(store.mark_damaged(key.piece(3))).unwrap();
    runtime.hold();
    assert!(at_hand(&store, key, 1).is_none(), "the whole look is out of date");
    runtime.release();
    let damaged = |found| matches!(found, Err(StoreError::Damaged { number: 3 }));
    assert!(damaged(ready(store.piece(key.piece(3)))));
    // Read again after that, with the damaged one among those that follow.
    ready(store.piece(key.piece(1))).unwrap();
    runtime.hold();
    assert!(at_hand(&store, key, 2).is_some());
    assert!(at_hand(&store, key, 3).is_none());
    runtime.release();
    assert!(damaged(ready(store.piece(key.piece(3)))));

    let again = bytes(LENGTH, 9);
    let mut writer = ready(store.writer(key.piece(3))).unwrap();
    ready(writer.write(again.clone())).unwrap();
    ready(writer.commit(provenance(&again))).unwrap();
    let found: Provenance = ready(store.piece(key.piece(3))).unwrap().provenance;
    assert_eq!(found, provenance(&again));
    assert!(ready(store.delete(key)).unwrap());
    assert!(matches!(ready(store.piece(key.piece(4))), Err(StoreError::Missing(_))));
    drop(in_use);
}

#[test]
fn a_look_that_a_change_overtakes_is_not_kept() {
    // However the jobs of the look and of the change take turns.
    for order in [[0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0]] {
        let (runtime, store, key, _) = world();
        let _in_use = ready(store.piece(key.piece(0))).unwrap();
        runtime.hold();
        let mut look = store.piece(key.piece(20));
        let mut marking = store.mark_damaged(key.piece(21));
        let (mut looked, mut marked) = (None, None);
        for choice in order {
            looked = looked.or_else(|| (&mut look).now_or_never());
            marked = marked.or_else(|| (&mut marking).now_or_never());
            runtime.run_one(choice);
        }
        runtime.release();
        looked.unwrap_or_else(|| ready(look)).unwrap();
        marked.unwrap_or_else(|| ready(marking)).unwrap();
        let found = ready(store.piece(key.piece(21)));
        assert!(matches!(found, Err(StoreError::Damaged { number: 21 })), "{order:?}");
    }
}
