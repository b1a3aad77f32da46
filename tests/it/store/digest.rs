//! The digests of a whole task, computed while its pieces come: in any order, by several processes, with damage in between.
//!
//! What has to hold is always the same: what is exported is the content, its digest is that of the content, and, but for
//! damage, no process reads a byte twice.

use super::contract::{bytes, new_task, provenance};
use super::crash_disk::{CrashDisk, Fault};
use super::watched::Watched;
use super::world::{Inline, ready};
use bytes::Bytes;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use vortex_p2p::store::disk::{DiskStore, ExportError, OsDisk};
use vortex_p2p::store::{Missing, NewTask, PieceStore as _, Provenance, StoreError};
use vortex_p2p::wire::{Algorithm, Digest};

/// Somebody who computes the digest ahead, one look at a time.
struct Following(Pin<Box<dyn Future<Output = Result<(), StoreError>> + Send>>);

impl Following {
    fn new(store: &DiskStore, task: NewTask) -> Self {
        let store = store.clone();
        Self(Box::pin(async move { store.digest_ahead(task.key).await }))
    }

    fn look(&mut self) -> Poll<Result<(), StoreError>> {
        self.0.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    }

    /// It has come to the end of the content.
    fn ends(&mut self) {
        assert!(matches!(self.look(), Poll::Ready(Ok(()))));
    }

    /// It waits for a piece.
    fn waits(&mut self) {
        assert!(self.look().is_pending());
    }
}

fn put(store: &DiskStore, task: NewTask, number: u32, content: &[u8]) {
    let written = Provenance { digest: Digest::of(Algorithm::Sha512, content), ..provenance(content) };
    let mut writer = ready(store.writer(task.key.piece(number))).unwrap();
    ready(writer.write(Bytes::copy_from_slice(content))).unwrap();
    ready(writer.commit(written)).unwrap();
}

fn piece(task: NewTask, content: &[u8], number: u32) -> &[u8] {
    let span = task.division.piece(number).unwrap();
    &content[span.offset as usize..][..span.length.get() as usize]
}

fn sha256(content: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, content)
}

/// Where an export goes.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
    /// A store beside it with a task of which nothing is there yet, and where the store is.
    fn begin(&self, task: NewTask) -> (PathBuf, Watched, DiskStore) {
        let path = self.0.path().join("store");
        let disk = Watched::new(OsDisk::open(&path).unwrap());
        let store = disk.open();
        ready(store.create(task)).unwrap();
        (path, disk, store)
    }
    fn target(&self) -> PathBuf {
        self.0.path().join("target")
    }
    fn found(&self) -> Vec<u8> {
        std::fs::read(self.target()).unwrap()
    }
}

const PIECE: u64 = 700;
const PIECES: u32 = 7;
const LENGTH: u64 = PIECE * (PIECES as u64 - 1) + 33;

#[test]
fn what_was_read_as_it_came_is_not_read_again() {
    let (content, task) = (bytes(LENGTH as usize, 1), new_task(1, LENGTH, PIECE));
    for order in [[0, 1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1, 0], [3, 0, 6, 1, 2, 5, 4]] {
        let place = Place::new();
        let (_, disk, store) = place.begin(task);
        // As a transfer does: from then on the store knows without its index what is held.
        ready(store.held(task.key)).unwrap();
        let mut following = Following::new(&store, task);
        let mut held = BTreeSet::new();
        for number in order {
            following.waits();
            put(&store, task, number, piece(task, &content, number));
            held.insert(number);
            if number == *order.last().unwrap() {
                following.ends();
            } else {
                following.waits();
            }
            let run = (0..PIECES).take_while(|number| held.contains(number)).count() as u64;
            assert_eq!(disk.so_far(), LENGTH.min(run * PIECE), "each piece as soon as it can be");
        }
        assert_eq!(disk.read(), LENGTH);
        assert_eq!(ready(store.give_away(task.key, place.target())).unwrap(), sha256(&content));
        assert_eq!(disk.read(), 0, "nothing is left to read");
        assert_eq!(place.found(), content);
    }
}

#[test]
fn what_was_not_read_as_it_came_is_read_at_the_end() {
    let (content, task) = (bytes(LENGTH as usize, 1), new_task(1, LENGTH, PIECE));
    for (followed, copied) in (0..=PIECES).flat_map(|followed| [(followed, false), (followed, true)]) {
        let (place, disk) = (Place::new(), Watched::new(CrashDisk::default()));
        let store = disk.open();
        ready(store.create(task)).unwrap();
        let mut following = Following::new(&store, task);
        for number in 0..=PIECES {
            if number == followed {
                let _ = following.look();
            }
            if number < PIECES {
                put(&store, task, number, piece(task, &content, number));
            }
        }
        let ahead = LENGTH.min(u64::from(followed) * PIECE);
        drop(following);
        assert_eq!(disk.read(), ahead);
        // This disk moves nothing out, so all of it is read once more to be copied; and what was left for the digest only once
        // by an export.
        let (sha256_of_it, read) = match copied {
            true => (ready(store.export(task.key, place.target())), LENGTH),
            false => (ready(store.give_away(task.key, place.target())), 2 * LENGTH - ahead),
        };
        assert_eq!(sha256_of_it.unwrap(), sha256(&content));
        assert_eq!(disk.read(), read);
        assert_eq!(place.found(), content);
        if copied {
            // What was computed ahead counts once.
            ready(store.export(task.key, place.target())).unwrap();
            assert_eq!(disk.read(), LENGTH);
        }
    }
}

#[test]
fn pieces_of_another_process_are_read_once_and_verified() {
    let (content, task) = (bytes(LENGTH as usize, 1), new_task(1, LENGTH, PIECE));
    let place = Place::new();
    let (_, disk, store) = place.begin(task);
    let mut following = Following::new(&store, task);
    for number in [0, 1, 3, 4] {
        put(&store, task, number, piece(task, &content, number));
        following.waits();
    }
    drop((following, store));
    assert_eq!(disk.read(), 2 * PIECE);
    let store = disk.open();
    let mut following = Following::new(&store, task);
    for number in [5, 2, 6] {
        following.waits();
        put(&store, task, number, piece(task, &content, number));
    }
    following.ends();
    assert_eq!(disk.read(), LENGTH);
    assert_eq!(ready(store.give_away(task.key, place.target())).unwrap(), sha256(&content));
    assert_eq!((disk.read(), place.found()), (0, content.to_vec()));
}

#[test]
fn a_piece_that_has_changed_on_the_disk_is_fetched_again_and_the_rest_not_read_again() {
    let (content, task) = (bytes(LENGTH as usize, 1), new_task(1, LENGTH, PIECE));
    let (place, crash) = (Place::new(), CrashDisk::default());
    let disk = Watched::new(crash.clone());
    let store = disk.open();
    ready(store.create(task)).unwrap();
    for number in 0..PIECES {
        put(&store, task, number, piece(task, &content, number));
    }
    let name = crash.names().into_iter().find(|name| name.ends_with(".content")).unwrap();
    crash.flip(&name, 3 * PIECE as usize + 5);
    let mut following = Following::new(&store, task);
    following.waits();
    assert_eq!(disk.read(), 4 * PIECE);
    assert!(!ready(store.held(task.key)).unwrap().contains(3), "it is served no more");
    let error = ready(store.give_away(task.key, place.target())).unwrap_err();
    assert!(matches!(error, ExportError::Incomplete { held: 6, pieces: 7 }), "{error:?}");
    put(&store, task, 3, piece(task, &content, 3));
    following.ends();
    assert_eq!(disk.read(), LENGTH - 3 * PIECE);
    // What changes after it was read, a copy finds out.
    crash.flip(&name, 5);
    let error = ready(store.export(task.key, place.target())).unwrap_err();
    assert!(matches!(error, ExportError::Store(StoreError::Damaged { number: 0 })), "{error:?}");
    put(&store, task, 0, piece(task, &content, 0));
    assert_eq!(ready(store.export(task.key, place.target())).unwrap(), sha256(&content));
    assert_eq!(place.found(), content);
}

/// Whoever serves a piece may find it damaged while it is read here, and another writes it anew, with other bytes.
#[test]
fn a_piece_that_is_written_again_while_it_is_read_is_read_again() {
    let task = new_task(1, 3 << 18, 1 << 19);
    let (first, second) = (bytes(3 << 18, 1), bytes(3 << 18, 2));
    let mut interrupted = 0;
    for (after, number) in (0..4).flat_map(|after| [(after, 0), (after, 1)]) {
        for at_the_end in [false, true] {
            let (place, disk) = (Place::new(), Watched::new(CrashDisk::default()));
            let store = disk.open();
            ready(store.create(task)).unwrap();
            (0..2).for_each(|number| put(&store, task, number, piece(task, &first, number)));
            let (again, content) = (store.clone(), second.clone());
            disk.interrupt(after, move || {
                ready(again.mark_damaged(task.key.piece(number))).unwrap();
                put(&again, task, number, piece(task, &content, number));
            });
            let mut whole = first.to_vec();
            let span = task.division.piece(number).unwrap();
            whole[span.offset as usize..][..span.length.get() as usize]
                .copy_from_slice(piece(task, &second, number));
            if !at_the_end {
                let _ = Following::new(&store, task).look();
            }
            let mut exported = ready(store.export(task.key, place.target()));
            // The old digest and the new bytes, or half of them: found out, and as good as any damage.
            while let Err(ExportError::Store(StoreError::Damaged { .. }) | ExportError::Incomplete { .. }) =
                exported
            {
                let held = ready(store.held(task.key)).unwrap();
                let missing: Vec<_> = (0..2).filter(|number| !held.contains(*number)).collect();
                assert!(!missing.is_empty(), "{after} {number} {at_the_end}");
                missing.into_iter().for_each(|number| put(&store, task, number, piece(task, &whole, number)));
                exported = ready(store.export(task.key, place.target()));
            }
            interrupted += u32::from(disk.was_interrupted());
            let expected = if disk.was_interrupted() { whole } else { first.to_vec() };
            assert_eq!(exported.unwrap(), sha256(&expected), "{after} {number} {at_the_end}");
            assert!(place.found() == expected, "{after} {number} {at_the_end}");
        }
    }
    assert_eq!(interrupted, 14, "the two others would have come after the last read");
}

#[test]
fn a_piece_longer_than_a_job_takes_several_and_each_counts() {
    let (content, task) = (bytes(20 << 20, 3), new_task(1, 20 << 20, 19 << 20));
    for jobs in 1..=4 {
        let runtime = Inline::new();
        let (place, disk) = (Place::new(), Watched::new(CrashDisk::default()));
        let store = ready(DiskStore::open(Arc::new(disk.clone()), runtime.clone())).unwrap();
        ready(store.create(task)).unwrap();
        (0..2).for_each(|number| put(&store, task, number, piece(task, &content, number)));
        runtime.hold();
        // The first job opens the content. Whoever waits for the last of them gives up when it has been handed over.
        let mut following = Following::new(&store, task);
        for _ in 1..jobs {
            following.waits();
            runtime.run_one(0);
        }
        following.waits();
        drop(following);
        runtime.release();
        assert_eq!(disk.read(), [0, 8 << 20, 16 << 20, 20 << 20][jobs - 1]);
        assert_eq!(ready(store.export(task.key, place.target())).unwrap(), sha256(&content));
        assert_eq!(disk.read(), 20 << 20, "for the copy");
        assert!(place.found() == content);
    }
}

#[test]
fn a_long_piece_that_is_written_again_between_two_jobs_is_begun_again() {
    let task = new_task(1, 20 << 20, 19 << 20);
    let (first, second) = (bytes(20 << 20, 3), bytes(20 << 20, 4));
    let runtime = Inline::new();
    let (place, disk) = (Place::new(), Watched::new(CrashDisk::default()));
    let store = ready(DiskStore::open(Arc::new(disk.clone()), runtime.clone())).unwrap();
    ready(store.create(task)).unwrap();
    put(&store, task, 0, piece(task, &first, 0));
    put(&store, task, 1, piece(task, &second, 1));
    runtime.hold();
    let mut following = Following::new(&store, task);
    for _ in ["opens the content", "reads 8 MiB"] {
        following.waits();
        runtime.run_one(0);
    }
    runtime.release();
    ready(store.mark_damaged(task.key.piece(0))).unwrap();
    put(&store, task, 0, piece(task, &second, 0));
    following.ends();
    assert_eq!(disk.read(), (8 << 20) + (20 << 20));
    assert_eq!(ready(store.give_away(task.key, place.target())).unwrap(), sha256(&second));
}

#[test]
fn a_read_that_fails_in_the_middle_of_a_piece_leaves_nothing_of_it_in_the_digest() {
    let (content, task) = (bytes(3 << 18, 1), new_task(1, 3 << 18, 3 << 18));
    let (place, crash) = (Place::new(), CrashDisk::default());
    let disk = Watched::new(crash.clone());
    let store = disk.open();
    ready(store.create(task)).unwrap();
    put(&store, task, 0, &content);
    disk.interrupt(1, move || crash.fail(Fault::Read, 0));
    let failed = Following::new(&store, task).look();
    assert!(matches!(failed, Poll::Ready(Err(StoreError::Io { .. }))), "{failed:?}");
    Following::new(&store, task).ends();
    assert_eq!(ready(store.export(task.key, place.target())).unwrap(), sha256(&content));
}

#[test]
fn an_export_that_finds_damage_need_not_begin_again() {
    let (content, task) = (bytes(LENGTH as usize, 1), new_task(1, LENGTH, PIECE));
    let place = Place::new();
    let (path, disk, store) = place.begin(task);
    (0..PIECES).for_each(|number| put(&store, task, number, piece(task, &content, number)));
    let file = std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path());
    let file = file.into_iter().find(|path| path.extension().is_some_and(|it| it == "content")).unwrap();
    let mut damaged = std::fs::read(&file).unwrap();
    damaged[3 * PIECE as usize] ^= 1;
    std::fs::write(&file, damaged).unwrap();
    let error = ready(store.give_away(task.key, place.target())).unwrap_err();
    assert!(matches!(error, ExportError::Store(StoreError::Damaged { number: 3 })), "{error:?}");
    assert_eq!(disk.read(), 4 * PIECE);
    put(&store, task, 3, piece(task, &content, 3));
    assert_eq!(ready(store.give_away(task.key, place.target())).unwrap(), sha256(&content));
    assert_eq!((disk.read(), place.found()), (LENGTH - 3 * PIECE, content.to_vec()));
}

/// The bytes are those that were verified up to the moment at which the file leaves the store.
#[test]
fn a_piece_that_is_found_damaged_after_its_digest_is_not_given_away() {
    let (content, task) = (bytes(LENGTH as usize, 1), new_task(1, LENGTH, PIECE));
    let runtime = Inline::new();
    let place = Place::new();
    let disk = Watched::new(OsDisk::open(place.0.path().join("store")).unwrap());
    let store = ready(DiskStore::open(Arc::new(disk.clone()), runtime.clone())).unwrap();
    ready(store.create(task)).unwrap();
    (0..PIECES).for_each(|number| put(&store, task, number, piece(task, &content, number)));
    runtime.hold();
    let mut giving = Box::pin(store.give_away(task.key, place.target()));
    let mut look = || giving.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    for _ in ["opens the content", "reads it"] {
        assert!(look().is_pending());
        runtime.run_one(0);
    }
    assert_eq!(disk.read(), LENGTH);
    assert!(look().is_pending(), "it is about to be moved");
    let mut marking = Box::pin(store.mark_damaged(task.key.piece(2)));
    while marking.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
        // The job of the other one comes first.
        runtime.run_one(1);
    }
    runtime.run_one(0);
    let Poll::Ready(given) = look() else { panic!("it waits for something else") };
    assert!(matches!(given, Err(ExportError::Incomplete { held: 6, pieces: 7 })), "{given:?}");
    assert!(!place.target().exists());
    runtime.release();
    put(&store, task, 2, piece(task, &content, 2));
    assert_eq!(ready(store.give_away(task.key, place.target())).unwrap(), sha256(&content));
    assert_eq!(place.found(), content);
}

#[test]
fn a_digest_that_becomes_known_late_is_computed_all_the_same() {
    let (content, task) = (bytes(LENGTH as usize, 1), new_task(1, LENGTH, PIECE));
    for (algorithm, right) in Algorithm::ALL.into_iter().flat_map(|it| [(it, true), (it, false)]) {
        let (place, disk) = (Place::new(), Watched::new(CrashDisk::default()));
        let store = disk.open();
        ready(store.create(task)).unwrap();
        let mut following = Following::new(&store, task);
        for number in 0..PIECES {
            if number == 4 {
                let digest = Digest::of(algorithm, if right { &content } else { b"other" });
                ready(store.create(NewTask { digest: Some(digest), ..task })).unwrap();
            }
            put(&store, task, number, piece(task, &content, number));
            let _ = following.look();
        }
        match ready(store.export(task.key, place.target())) {
            Ok(found) if right => assert_eq!((found, place.found()), (sha256(&content), content.to_vec())),
            Err(ExportError::WrongDigest { computed }) if !right => {
                assert_eq!(computed, Digest::of(algorithm, &content));
            }
            other => panic!("{algorithm} {right}: {other:?}"),
        }
    }
}

#[test]
fn what_is_not_there_is_not_waited_for() {
    let (content, task) = (bytes(LENGTH as usize, 1), new_task(1, LENGTH, PIECE));
    let store = Watched::new(CrashDisk::default()).open();
    let missing = |error| matches!(error, Poll::Ready(Err(StoreError::Missing(Missing::Task))));
    assert!(missing(Following::new(&store, task).look()));
    ready(store.create(task)).unwrap();
    put(&store, task, 0, piece(task, &content, 0));
    let mut following = Following::new(&store, task);
    following.waits();
    ready(store.delete(task.key)).unwrap();
    let other = new_task(2, LENGTH, PIECE);
    ready(store.create(other)).unwrap();
    put(&store, other, 0, piece(other, &content, 0));
    assert!(missing(following.look()));
    // An empty task has one piece, of no bytes.
    let empty = new_task(3, 0, PIECE);
    ready(store.create(empty)).unwrap();
    let mut following = Following::new(&store, empty);
    following.waits();
    put(&store, empty, 0, &[]);
    following.ends();
}

#[derive(Debug, Clone, Copy)]
enum Step {
    /// A piece comes, with these bytes.
    Put(u32, u8),
    /// Whoever computes ahead gets on.
    Look,
    /// Somebody finds it damaged.
    Damage(u32),
    /// A byte of it changes on the disk.
    Rot(u32),
    /// The next process.
    Reopen,
    /// Nobody computes ahead any more; until the next look.
    GiveUp,
    Export,
}

fn step() -> impl Strategy<Value = Step> {
    let number = 0..PIECES;
    prop_oneof![
        8 => (number.clone(), 0..4_u8).prop_map(|(number, version)| Step::Put(number, version)),
        6 => Just(Step::Look),
        1 => number.clone().prop_map(Step::Damage),
        1 => number.prop_map(Step::Rot),
        1 => Just(Step::Reopen),
        1 => Just(Step::GiveUp),
        1 => Just(Step::Export),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, ..ProptestConfig::default() })]
    #[test]
    fn whatever_happens_the_digest_is_that_of_what_is_there(steps in proptest::collection::vec(step(), 1..40)) {
        let task = new_task(1, LENGTH, PIECE);
        let version = |number: u32, version: u8| bytes(LENGTH as usize, 1 + version * 50)
            .slice(number as usize * PIECE as usize..LENGTH.min((u64::from(number) + 1) * PIECE) as usize);
        let (place, crash) = (Place::new(), CrashDisk::default());
        let disk = Watched::new(crash.clone());
        let mut store = disk.open();
        ready(store.create(task)).unwrap();
        let mut following = None;
        let mut pieces = BTreeMap::<u32, Bytes>::new();
        let mut rotten = BTreeSet::new();
        // What this process may have read at most: each piece once, and what damage makes it read again.
        let mut allowed = LENGTH;
        let mut read = 0;
        for step in steps.into_iter().chain([Step::Export]) {
            match step {
                Step::Put(number, seed) => match ready(store.writer(task.key.piece(number))) {
                    Ok(writer) => {
                        drop(writer);
                        put(&store, task, number, &version(number, seed));
                        pieces.insert(number, version(number, seed));
                        rotten.remove(&number);
                    }
                    Err(StoreError::Held { .. }) => {}
                    Err(error) => panic!("{error}"),
                },
                Step::Look => {
                    let look = following.get_or_insert_with(|| Following::new(&store, task)).look();
                    if let Poll::Ready(ended) = look {
                        ended.unwrap();
                        following = None;
                    }
                }
                Step::Damage(number) => {
                    ready(store.mark_damaged(task.key.piece(number))).unwrap();
                    allowed += LENGTH;
                }
                Step::Rot(number) if pieces.contains_key(&number) => {
                    let name = crash.names().into_iter().find(|name| name.ends_with(".content")).unwrap();
                    crash.flip(&name, (u64::from(number) * PIECE) as usize);
                    if !rotten.remove(&number) {
                        rotten.insert(number);
                    }
                    allowed += 2 * LENGTH;
                }
                Step::Rot(_) => {}
                Step::Reopen => {
                    drop((following.take(), store));
                    store = disk.open();
                    (allowed, read) = (LENGTH, 0);
                    allowed += 2 * LENGTH * rotten.len() as u64;
                }
                Step::GiveUp => following = None,
                Step::Export => {
                    // As `get` does it: what is missing or damaged is fetched until the file is there.
                    let found = loop {
                        match ready(store.export(task.key, place.target())) {
                            Ok(found) => break found,
                            Err(ExportError::Store(StoreError::Damaged { number })) => {
                                prop_assert!(rotten.remove(&number), "piece {number} was as it should be");
                            }
                            Err(ExportError::Incomplete { .. }) => {
                                let held = ready(store.held(task.key)).unwrap();
                                for number in (0..PIECES).filter(|number| !held.contains(*number)) {
                                    put(&store, task, number, &version(number, 5));
                                    pieces.insert(number, version(number, 5));
                                    rotten.remove(&number);
                                }
                            }
                            Err(error) => panic!("{error}"),
                        }
                        allowed += LENGTH;
                    };
                    let content = pieces.values().flatten().copied().collect::<Vec<u8>>();
                    prop_assert_eq!(found, sha256(&content));
                    prop_assert!(place.found() == content);
                    // The copy reads what was in the digest, and what was computed ahead is used up.
                    allowed += 2 * LENGTH;
                }
            }
            read += disk.read();
            prop_assert!(read <= allowed, "{read} bytes read, {allowed} expected at most");
        }
    }
}
