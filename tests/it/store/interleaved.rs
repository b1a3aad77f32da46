//! Imports, writers, readers, deletion and collection of the same tasks, in any order of their steps.
//!
//! Every operation is a future, and every step of it on the disk a job. What runs next is drawn: so each run is one
//! interleaving of many, and repeats. A history is kept of when each operation began and ended; where two did not overlap,
//! the order of their effects is certain, and that is what the store is held against.

use super::contract::{bytes, key, provenance};
use super::crash_disk::{CrashDisk, Cut, Dice};
use super::world::{Inline, ready};
use bytes::Bytes;
use proptest::prelude::*;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::io::Cursor;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use vortex_p2p::store::disk::{DiskStore, ImportError, ImportOptions};
use vortex_p2p::store::{Keep, Missing, NewTask, PieceStore as _, StoreError, TaskKey};
use vortex_p2p::wire::{Algorithm, Digest, Division, PieceKind, PieceLength, TaskId};

const PIECE: u64 = 600;
const PIECES: u32 = 3;
const TASKS: u8 = 3;
const LENGTH: usize = (PIECES as usize - 1) * PIECE as usize + 100;

fn content(which: u8) -> Bytes {
    bytes(LENGTH, which.wrapping_mul(85))
}

fn piece(which: u8, number: u32) -> Bytes {
    let start = number as usize * PIECE as usize;
    content(which).slice(start..LENGTH.min(start + PIECE as usize))
}

fn task(which: u8) -> NewTask {
    let digest = Digest::of(Algorithm::Sha256, &content(which));
    let Digest::Sha256(hash) = digest else { unreachable!() };
    let division = Division::new(LENGTH as u64, PieceLength::try_from(PIECE).unwrap()).unwrap();
    let key = TaskKey { id: TaskId::from_sha256(hash), ..key(PieceKind::Piece, 0) };
    NewTask { key, division, digest: Some(digest) }
}

#[derive(Debug, Clone, Copy)]
enum Operation {
    Import(u8),
    Create(u8),
    Put(u8, u32),
    Read(u8, u32),
    Damage(u8, u32),
    Delete(u8),
    Collect(u64),
}

fn operation() -> impl Strategy<Value = Operation> {
    let (which, number) = (0..TASKS, 0..PIECES);
    prop_oneof![
        2 => which.clone().prop_map(Operation::Import),
        2 => which.clone().prop_map(Operation::Create),
        6 => (which.clone(), number.clone()).prop_map(|(t, n)| Operation::Put(t, n)),
        5 => (which.clone(), number.clone()).prop_map(|(t, n)| Operation::Read(t, n)),
        1 => (which.clone(), number).prop_map(|(t, n)| Operation::Damage(t, n)),
        2 => which.prop_map(Operation::Delete),
        1 => (0..=u64::from(TASKS)).prop_map(|tasks| Operation::Collect(tasks * LENGTH as u64)),
    ]
}

/// When something began and ended, by a clock that goes on at each of both.
type Span = (u64, u64);

/// What is known to have happened to a piece.
#[derive(Debug, Default)]
struct History {
    clock: Cell<u64>,
    /// It was acknowledged.
    brought: RefCell<BTreeMap<(u8, u32), Vec<Span>>>,
    /// It may have been taken away.
    taken: RefCell<BTreeMap<(u8, u32), Vec<Span>>>,
    /// It was taken away for certain.
    gone: RefCell<BTreeMap<(u8, u32), Vec<Span>>>,
    /// Tasks of which a piece is said to be damaged, and when that was done; never yet, where it is under way.
    doubts: RefCell<Vec<(u8, u64)>>,
    reads: Cell<u32>,
}

impl History {
    fn tick(&self) -> u64 {
        self.clock.set(self.clock.get() + 1);
        self.clock.get()
    }

    fn note(
        &self,
        list: &RefCell<BTreeMap<(u8, u32), Vec<Span>>>,
        which: u8,
        number: Option<u32>,
        begun: u64,
    ) {
        let span = (begun, self.tick());
        for number in number.map_or(0..PIECES, |number| number..number + 1) {
            list.borrow_mut().entry((which, number)).or_default().push(span);
        }
    }

    /// Whether the piece has to be held in the end (`Some(true)`), must not be (`Some(false)`), or may be.
    fn verdict(&self, piece: (u8, u32)) -> Option<bool> {
        let of =
            |list: &RefCell<BTreeMap<_, Vec<Span>>>| list.borrow().get(&piece).cloned().unwrap_or_default();
        let (brought, taken, gone) = (of(&self.brought), of(&self.taken), of(&self.gone));
        if brought.iter().any(|(begun, _)| taken.iter().all(|(_, ended)| ended < begun)) {
            return Some(true);
        }
        if brought.is_empty() || gone.iter().any(|(begun, _)| brought.iter().all(|(_, ended)| ended < begun))
        {
            return Some(false);
        }
        None
    }
}

async fn perform(store: DiskStore, history: &History, operation: Operation) {
    let begun = history.tick();
    let of = |which: u8| task(which).key;
    match operation {
        Operation::Import(which) => {
            let options = ImportOptions {
                kind: PieceKind::Piece,
                piece_length: Some(PieceLength::try_from(PIECE).unwrap()),
                algorithm: Algorithm::Crc32,
            };
            match store.import_reader(Cursor::new(content(which)), LENGTH as u64, options).await {
                Ok(task) => {
                    // Unless somebody found damage after it was whole and before this is told.
                    let meanwhile = |(doubted, ended): &(u8, u64)| *doubted == which && *ended > begun;
                    assert!(task.is_complete() || history.doubts.borrow().iter().any(meanwhile));
                    history.note(&history.brought, which, None, begun);
                }
                // Somebody else has the name, in part only. What was there in part before may be gone.
                Err(ImportError::Raced) => {}
                Err(error) => panic!("{error}"),
            }
            // It takes the place of what is there in part: a piece that is acknowledged meanwhile goes with that.
            history.note(&history.taken, which, None, begun);
        }
        Operation::Create(which) => {
            store.create(task(which)).await.unwrap();
        }
        Operation::Put(which, number) => {
            let content = piece(which, number);
            let mut writer = match store.writer(of(which).piece(number)).await {
                Ok(writer) => writer,
                Err(
                    StoreError::Held { .. } | StoreError::Busy { .. } | StoreError::Missing(Missing::Task),
                ) => return,
                Err(error) => panic!("{error}"),
            };
            for part in [content.slice(..37), content.slice(37..)] {
                match writer.write(part).await {
                    Ok(()) => {}
                    Err(StoreError::Missing(Missing::Task)) => return,
                    Err(error) => panic!("{error}"),
                }
            }
            match writer.commit(provenance(&content)).await {
                Ok(()) => history.note(&history.brought, which, Some(number), begun),
                Err(StoreError::Missing(Missing::Task)) => {}
                Err(error) => panic!("{error}"),
            }
        }
        Operation::Read(which, number) => {
            let found = match store.piece(of(which).piece(number)).await {
                Ok(found) => found,
                Err(StoreError::Missing(_) | StoreError::Damaged { .. }) => return,
                Err(error) => panic!("{error}"),
            };
            // In parts, with whatever happens between them: who has a piece reads it to its end.
            let mut read = Vec::new();
            while (read.len() as u64) < found.content.len() {
                read.extend_from_slice(&found.content.read(read.len() as u64, 250).await.unwrap());
            }
            assert_eq!(read, piece(which, number), "task {which}, piece {number}");
            history.reads.set(history.reads.get() + 1);
        }
        Operation::Damage(which, number) => {
            let place = history.doubts.borrow().len();
            history.doubts.borrow_mut().push((which, u64::MAX));
            store.mark_damaged(of(which).piece(number)).await.unwrap();
            history.doubts.borrow_mut()[place].1 = history.tick();
            history.note(&history.taken, which, Some(number), begun);
            history.note(&history.gone, which, Some(number), begun);
        }
        Operation::Delete(which) => {
            // `false`: it is not there, or somebody else is about to delete it and may fail yet.
            if store.delete(of(which)).await.unwrap() {
                history.note(&history.gone, which, None, begun);
            }
            history.note(&history.taken, which, None, begun);
        }
        Operation::Collect(bytes) => {
            let collected = store.collect(Keep { bytes: Some(bytes), age: None }).await.unwrap();
            for which in (0..TASKS).filter(|which| collected.tasks.contains(&of(*which))) {
                history.note(&history.taken, which, None, begun);
                history.note(&history.gone, which, None, begun);
            }
        }
    }
}

/// Everything that is there, by task.
fn look(store: &DiskStore) -> BTreeMap<u8, Vec<u32>> {
    let mut there = BTreeMap::new();
    for which in 0..TASKS {
        let key = task(which).key;
        let Some(known) = ready(store.task(key)).unwrap() else { continue };
        let held = ready(store.held(key)).unwrap();
        assert_eq!(held.len(), known.held, "the count is that of the pieces");
        for number in &held {
            let found = ready(store.piece(key.piece(number))).unwrap();
            ready(found.verify()).unwrap();
            assert_eq!(ready(found.content.read(0, usize::MAX)).unwrap(), piece(which, number));
        }
        there.insert(which, held.iter().collect());
    }
    there
}

/// Runs the operations, up to `at_once` of them at a time, in an order that `dice` draws.
fn interleave(operations: &[Operation], at_once: usize, dice: &mut Dice) -> u32 {
    let (disk, runtime, history) = (CrashDisk::default(), Inline::new(), History::default());
    let open = || ready(DiskStore::open(Arc::new(disk.clone()), runtime.clone())).unwrap();
    let store = open();
    let mut waiting = operations.iter();
    let mut running: Vec<Pin<Box<dyn Future<Output = ()> + '_>>> = Vec::new();
    runtime.hold();
    let mut idle = 0;
    loop {
        while running.len() < at_once
            && let Some(operation) = waiting.next()
        {
            running.push(Box::pin(perform(store.clone(), &history, *operation)));
        }
        if running.is_empty() {
            break;
        }
        let chosen = dice.roll(2 * running.len() as u64) as usize;
        if chosen >= running.len() {
            runtime.run_one(dice.roll(u64::MAX) as usize);
        } else if running[chosen].as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
            drop(running.swap_remove(chosen));
            idle = 0;
        }
        idle += 1;
        assert!(idle < 100_000, "{} operations wait for each other", running.len());
    }
    drop(running);
    runtime.release();

    let there = look(&store);
    for which in 0..TASKS {
        for number in 0..PIECES {
            let held = there.get(&which).is_some_and(|held| held.contains(&number));
            if let Some(expected) = history.verdict((which, number)) {
                assert_eq!(held, expected, "task {which}, piece {number}: {history:?}");
            }
        }
    }
    let is_content = |name: &String| name.ends_with(".content");
    assert_eq!(
        disk.names().iter().filter(|name| is_content(name)).count(),
        there.len(),
        "{:?}",
        disk.names()
    );
    // What was acknowledged is durable, and nothing else comes back.
    drop(store);
    disk.cut(Cut::LoseAll, &mut Dice(0));
    assert_eq!(look(&open()), there);
    history.reads.get()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn whatever_the_order_nothing_is_lost_or_left_or_wrong(
        operations in proptest::collection::vec(operation(), 1..30),
        at_once in 1..6_usize,
        seed in any::<u64>(),
    ) {
        interleave(&operations, at_once, &mut Dice(seed));
    }
}

/// The test above would hold of a store that never has anything to read.
#[test]
fn pieces_are_read_while_others_change_the_task() {
    let mut operations = vec![Operation::Import(0)];
    for round in 0..20 {
        operations.extend([Operation::Read(0, round % PIECES), Operation::Delete(0), Operation::Import(0)]);
    }
    let reads: u32 = (0..20).map(|seed| interleave(&operations, 5, &mut Dice(seed))).sum();
    assert!(reads >= 40, "{reads} of 400 reads found their piece");
}

/// Two readers find the same piece damaged, and the second says so when the index has the word of the first already.
#[test]
fn a_piece_that_two_find_damaged_is_counted_out_once() {
    use Operation::{Collect, Create, Damage, Import, Put, Read};
    let operations = [
        Import(2),
        Damage(0, 0),
        Put(0, 0),
        Collect(1300),
        Import(2),
        Read(0, 0),
        Create(2),
        Create(0),
        Import(2),
        Put(0, 0),
        Damage(2, 0),
        Import(0),
        Read(0, 0),
        Put(0, 0),
        Create(0),
        Create(0),
        Damage(1, 0),
        Damage(2, 2),
        Read(0, 0),
        Damage(2, 2),
    ];
    interleave(&operations, 5, &mut Dice(2_677_623_371_832_896_742));
}
