//! What every store promises, for each store.

use super::world::{Inline, ready};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use vortex_p2p::store::{
    Keep, MemoryStore, Missing, NewTask, ParentId, PieceStore, PieceWriter, Provenance, SharedStore,
    StoreError, TaskKey,
};
use vortex_p2p::wire::{Algorithm, Digest, Division, ErrorCode, PieceKind, PieceLength, TaskId};

/// Each store there is, empty.
fn each_store(test: impl Fn(&Inline, SharedStore)) {
    let runtime = Inline::new();
    test(&runtime, Arc::new(MemoryStore::new(runtime.clone())));
    #[cfg(feature = "disk")]
    {
        use vortex_p2p::store::disk::{DiskStore, OsDisk};
        let directory = tempfile::tempdir().unwrap();
        let runtime = Inline::new();
        let disk = Arc::new(OsDisk::open(directory.path().join("a/new/store")).unwrap());
        let store = ready(DiskStore::open(disk, runtime.clone())).unwrap();
        test(&runtime, Arc::new(store));
    }
}

pub(super) fn key(kind: PieceKind, id: u8) -> TaskKey {
    TaskKey { kind, id: TaskId::from_sha256([id; 32]) }
}

pub(super) fn new_task(id: u8, length: u64, piece_length: u64) -> NewTask {
    let division = Division::new(length, PieceLength::try_from(piece_length).unwrap()).unwrap();
    NewTask { key: key(PieceKind::Piece, id), division, digest: None }
}

pub(super) fn bytes(length: usize, seed: u8) -> Bytes {
    (0..length).map(|at| (at as u8).wrapping_mul(31) ^ seed).collect()
}

pub(super) fn provenance(content: &[u8]) -> Provenance {
    Provenance {
        digest: Digest::of(Algorithm::Crc32, content),
        parent_id: ParentId::new("host-1"),
        cost: 3,
        created_at: -5,
    }
}

fn open(store: &SharedStore, key: TaskKey, number: u32) -> Box<dyn PieceWriter> {
    ready(store.writer(key.piece(number))).unwrap()
}

fn put(store: &SharedStore, key: TaskKey, number: u32, content: &Bytes) {
    let mut writer = open(store, key, number);
    ready(writer.write(content.clone())).unwrap();
    ready(writer.commit(provenance(content))).unwrap();
}

fn read(store: &SharedStore, key: TaskKey, number: u32) -> Result<Bytes, StoreError> {
    let piece = ready(store.piece(key.piece(number)))?;
    ready(piece.verify())?;
    ready(piece.content.read(0, usize::MAX))
}

#[test]
fn a_piece_is_read_as_it_was_written() {
    each_store(|_, store| {
        let task = new_task(1, 25, 10);
        ready(store.create(task)).unwrap();
        let content = bytes(25, 9);
        for (number, start) in [(2, 20), (0, 0), (1, 10)] {
            let part = content.slice(start..content.len().min(start + 10));
            let mut writer = open(&store, task.key, number);
            for byte in part.chunks(3) {
                ready(writer.write(Bytes::copy_from_slice(byte))).unwrap();
            }
            assert_eq!(writer.written(), u64::from(writer.span().length));
            ready(writer.commit(provenance(&part))).unwrap();
        }
        let piece = ready(store.piece(task.key.piece(1))).unwrap();
        assert_eq!((piece.number, piece.span.offset, piece.span.length.get()), (1, 10, 10));
        assert_eq!(piece.provenance, provenance(&content[10..20]));
        let text = piece.provenance.digest.to_text();
        let metadata = piece.metadata(&text);
        assert_eq!((metadata.number, metadata.offset, metadata.created_at), (1, 10, -5));
        assert_eq!((metadata.parent_id.as_str(), metadata.digest.as_str()), ("host-1", text.as_str()));
        // Ranges within the piece: exact, cut at its end, nothing beyond.
        for (offset, max, expected) in [
            (0, 10, 10..20),
            (3, 4, 13..17),
            (8, 100, 18..20),
            (10, 5, 20..20),
            (99, 5, 20..20),
            (0, 0, 10..10),
        ] {
            assert_eq!(ready(piece.content.read(offset, max)).unwrap(), content[expected]);
        }
        assert_eq!(ready(store.task(task.key)).unwrap().map(|task| task.is_complete()), Some(true));
    });
}

#[test]
fn an_empty_task_has_one_empty_piece() {
    //= VTX-REQ-006 test
    each_store(|_, store| {
        let task = new_task(1, 0, 10);
        ready(store.create(task)).unwrap();
        assert!(!ready(store.task(task.key)).unwrap().unwrap().is_complete());
        put(&store, task.key, 0, &Bytes::new());
        assert_eq!(read(&store, task.key, 0).unwrap(), Bytes::new());
        assert!(ready(store.task(task.key)).unwrap().unwrap().is_complete());
    });
}

#[test]
fn what_is_missing_is_told_apart() {
    //= VTX-REQ-012 test
    //= VTX-REQ-013 test
    each_store(|_, store| {
        let task = new_task(1, 25, 10);
        let missing = |number| match read(&store, task.key, number) {
            Err(StoreError::Missing(missing)) => missing,
            other => panic!("{other:?}"),
        };
        assert_eq!(missing(0), Missing::Task);
        ready(store.create(task)).unwrap();
        assert_eq!(missing(2), Missing::Content);
        assert_eq!(missing(3), Missing::Piece { pieces: 3 });
        assert_eq!(missing(u32::MAX), Missing::Piece { pieces: 3 });
        assert_eq!(StoreError::from(missing(2)).code(), ErrorCode::NotFound);
    });
}

#[test]
fn the_four_kinds_are_kept_apart() {
    //= VTX-REQ-014 test
    each_store(|_, store| {
        let name = |kind| key(kind, 1);
        for (seed, kind) in (0..).zip(PieceKind::ALL) {
            assert!(matches!(read(&store, name(kind), 0), Err(StoreError::Missing(Missing::Task))));
            ready(store.create(NewTask { key: name(kind), ..new_task(1, 10, 10) })).unwrap();
            put(&store, name(kind), 0, &bytes(10, seed));
        }
        for (seed, kind) in (0..).zip(PieceKind::ALL) {
            assert_eq!(read(&store, name(kind), 0).unwrap(), bytes(10, seed));
        }
        assert!(ready(store.delete(name(PieceKind::Cache))).unwrap());
        assert_eq!(ready(store.tasks()).unwrap().len(), 3);
        assert!(read(&store, name(PieceKind::Cache), 0).is_err());
        assert!(read(&store, name(PieceKind::Piece), 0).is_ok());
    });
}

#[test]
fn only_committed_pieces_are_served() {
    //= VTX-REQ-015 test
    each_store(|_, store| {
        let task = new_task(1, 20, 10);
        ready(store.create(task)).unwrap();
        let content = bytes(10, 1);
        let mut writer = open(&store, task.key, 0);
        ready(writer.write(content.clone())).unwrap();
        assert!(matches!(read(&store, task.key, 0), Err(StoreError::Missing(Missing::Content))));
        assert!(ready(store.held(task.key)).unwrap().is_empty());
        drop(writer);
        assert!(matches!(read(&store, task.key, 0), Err(StoreError::Missing(Missing::Content))));

        let mut short = open(&store, task.key, 0);
        ready(short.write(content.slice(..9))).unwrap();
        let error = ready(short.commit(provenance(&content[..9]))).unwrap_err();
        assert!(matches!(error, StoreError::Incomplete { written: 9, expected: 10 }), "{error:?}");

        let mut long = open(&store, task.key, 0);
        ready(long.write(content.clone())).unwrap();
        let error = ready(long.write(Bytes::from_static(b"x"))).unwrap_err();
        assert!(matches!(error, StoreError::Overrun { expected: 10 }), "{error:?}");
        assert!(
            ready(long.commit(provenance(&content))).is_err(),
            "a writer that was lied to commits nothing"
        );

        put(&store, task.key, 0, &content);
        assert_eq!(ready(store.held(task.key)).unwrap().iter().collect::<Vec<_>>(), [0]);
    });
}

#[test]
fn a_piece_has_one_writer() {
    each_store(|_, store| {
        let task = new_task(1, 20, 10);
        ready(store.create(task)).unwrap();
        let first = open(&store, task.key, 0);
        let again = ready(store.writer(task.key.piece(0)));
        assert!(matches!(again, Err(StoreError::Busy { number: 0 })), "{again:?}");
        let other = open(&store, task.key, 1);
        drop((first, other));
        put(&store, task.key, 0, &bytes(10, 1));
        let again = ready(store.writer(task.key.piece(0)));
        assert!(matches!(again, Err(StoreError::Held { number: 0 })), "{again:?}");
        let beyond = ready(store.writer(task.key.piece(2)));
        assert!(matches!(beyond, Err(StoreError::Missing(Missing::Piece { pieces: 2 }))), "{beyond:?}");
    });
}

#[test]
fn creating_twice_is_creating_once() {
    each_store(|_, store| {
        let task = new_task(1, 20, 10);
        ready(store.create(task)).unwrap();
        put(&store, task.key, 0, &bytes(10, 1));
        let digest = Some(Digest::of(Algorithm::Sha256, b"whole"));
        let again = ready(store.create(NewTask { digest, ..task })).unwrap();
        assert_eq!((again.held, again.digest), (1, digest));
        assert_eq!(ready(store.create(task)).unwrap().digest, digest, "what is known stays known");
        let other = Some(Digest::of(Algorithm::Sha256, b"other"));
        for (new, what) in [
            (NewTask { digest: other, ..task }, "digest"),
            (new_task(1, 20, 5), "piece length"),
            (new_task(1, 21, 10), "length"),
        ] {
            let error = ready(store.create(new)).unwrap_err();
            assert!(matches!(error, StoreError::Conflict { what: it } if it == what), "{error:?}");
        }
        assert_eq!(ready(store.task(task.key)).unwrap(), Some(again));
    });
}

#[test]
fn a_damaged_piece_is_out_of_service_until_written_again() {
    //= VTX-ERR-011 test
    each_store(|_, store| {
        let task = new_task(1, 20, 10);
        ready(store.create(task)).unwrap();
        let (wrong, right) = (bytes(10, 1), bytes(10, 2));
        let mut writer = open(&store, task.key, 0);
        ready(writer.write(wrong.clone())).unwrap();
        ready(writer.commit(provenance(&right))).unwrap();
        assert!(matches!(read(&store, task.key, 0), Err(StoreError::Damaged { number: 0 })));

        ready(store.mark_damaged(task.key.piece(0))).unwrap();
        let error = ready(store.piece(task.key.piece(0))).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { number: 0 }), "{error:?}");
        assert_eq!(error.code(), ErrorCode::Internal);
        assert!(ready(store.held(task.key)).unwrap().is_empty());
        assert_eq!(ready(store.task(task.key)).unwrap().unwrap().held, 0);

        put(&store, task.key, 0, &right);
        assert_eq!(read(&store, task.key, 0).unwrap(), right);
        assert_eq!(ready(store.task(task.key)).unwrap().unwrap().held, 1);
        // Of what is not there, nothing is damaged.
        ready(store.mark_damaged(task.key.piece(1))).unwrap();
        ready(store.mark_damaged(key(PieceKind::Cache, 9).piece(1))).unwrap();
        assert!(matches!(read(&store, task.key, 1), Err(StoreError::Missing(Missing::Content))));
    });
}

#[test]
fn a_deleted_task_is_gone_for_writers_and_stays_for_readers() {
    each_store(|_, store| {
        let task = new_task(1, 20, 10);
        ready(store.create(task)).unwrap();
        put(&store, task.key, 0, &bytes(10, 1));
        let reader = ready(store.piece(task.key.piece(0))).unwrap();
        let mut writer = open(&store, task.key, 1);
        ready(writer.write(bytes(10, 2))).unwrap();
        assert!(ready(store.delete(task.key)).unwrap());
        assert!(!ready(store.delete(task.key)).unwrap());
        ready(store.create(task)).unwrap();
        // The name is the same, the task is another.
        let error = ready(writer.commit(provenance(&bytes(10, 2)))).unwrap_err();
        assert!(matches!(error, StoreError::Missing(Missing::Task)), "{error:?}");
        assert!(ready(store.held(task.key)).unwrap().is_empty());
        assert_eq!(ready(reader.content.read(0, 100)).unwrap(), bytes(10, 1));
    });
}

#[test]
fn collection_takes_what_was_not_accessed_for_longest() {
    each_store(|clock, store| {
        for id in 1..=5 {
            clock.pass(Duration::from_secs(10));
            ready(store.create(new_task(id, 10, 10))).unwrap();
            put(&store, key(PieceKind::Piece, id), 0, &bytes(10, id));
        }
        let name = |id| key(PieceKind::Piece, id);
        clock.pass(Duration::from_secs(10));
        read(&store, name(1), 0).unwrap();
        ready(store.pin(name(2), true)).unwrap();
        let served = ready(store.piece(name(3).piece(0))).unwrap();
        clock.pass(Duration::from_secs(10));
        read(&store, name(5), 0).unwrap();
        // Oldest first: 2 is pinned, 4; 1 is younger since it was read; 3 is being served.
        let keep = |bytes| Keep { bytes: Some(bytes), age: None };
        assert!(ready(store.collect(keep(50))).unwrap().tasks.is_empty());
        let collected = ready(store.collect(keep(39))).unwrap();
        assert_eq!((collected.tasks, collected.bytes), (vec![name(4), name(1)], 20));
        assert!(
            ready(store.collect(Keep { bytes: None, age: Some(Duration::from_secs(100)) }))
                .unwrap()
                .tasks
                .is_empty()
        );
        clock.pass(Duration::from_secs(20));
        drop(served);
        ready(store.pin(name(2), false)).unwrap();
        let collected =
            ready(store.collect(Keep { bytes: None, age: Some(Duration::from_secs(25)) })).unwrap();
        assert_eq!(collected.tasks, [name(2), name(3)]);
        assert_eq!(ready(store.tasks()).unwrap().len(), 1);
        assert!(matches!(ready(store.pin(name(2), true)), Err(StoreError::Missing(Missing::Task))));
    });
}

#[test]
fn a_writer_keeps_its_task_from_collection() {
    each_store(|_, store| {
        let task = new_task(1, 20, 10);
        ready(store.create(task)).unwrap();
        let writer = open(&store, task.key, 0);
        let everything = Keep { bytes: Some(0), age: None };
        assert!(ready(store.collect(everything)).unwrap().tasks.is_empty());
        drop(writer);
        assert_eq!(ready(store.collect(everything)).unwrap().tasks, [task.key]);
    });
}

#[test]
fn a_peer_is_told_no_path() {
    //= VTX-SEC-009 test
    let error = StoreError::io("reading a piece", std::io::Error::other("/var/lib/dragonfly/content: gone"));
    assert_eq!(error.code(), ErrorCode::Internal);
    assert!(error.to_string().contains("/var/lib"), "the log is told");
    assert!(!error.peer_text().contains('/'));
}

#[test]
fn a_whole_file_in_memory() {
    let runtime = Inline::new();
    let store = MemoryStore::new(runtime);
    for length in [0, 1, 9, 10, 11, 20, 21] {
        let content = bytes(length, 3);
        let task = new_task(length as u8, length as u64, 10);
        let kept = ready(store.insert(task, Algorithm::Sha256, &content)).unwrap();
        assert!(kept.is_complete());
        let shared: SharedStore = Arc::new(store.clone());
        let mut whole = Vec::new();
        for number in ready(store.held(task.key)).unwrap() {
            whole.extend_from_slice(&read(&shared, task.key, number).unwrap());
        }
        assert_eq!(whole, content);
    }
}
