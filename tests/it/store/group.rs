//! Many pieces at a time, and many pieces in all.

use super::contract::{bytes, key, new_task, provenance};
use super::crash_disk::{CrashDisk, Cut, Dice};
use super::world::{Inline, ready};
use std::sync::Arc;
use std::task::{Context, Waker};
use vortex_p2p::store::SharedStore;
use vortex_p2p::store::disk::DiskStore;
use vortex_p2p::wire::PieceKind;

fn open(disk: &CrashDisk, runtime: &Arc<Inline>) -> SharedStore {
    Arc::new(ready(DiskStore::open(Arc::new(disk.clone()), runtime.clone())).unwrap())
}

/// Commits pieces of one byte all at the same moment.
fn commit_together(store: &SharedStore, runtime: &Inline, numbers: std::ops::Range<u32>) {
    let key = key(PieceKind::Piece, 1);
    let mut commits: Vec<_> = numbers
        .map(|number| {
            let content = bytes(1, number as u8);
            let mut writer = ready(store.writer(key.piece(number))).unwrap();
            ready(writer.write(content.clone())).unwrap();
            writer.commit(provenance(&content))
        })
        .collect();
    runtime.hold();
    // First they write, then they wait for the index, then they are done.
    for _ in 0..2 {
        for commit in &mut commits {
            assert!(commit.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
        runtime.run_held();
    }
    runtime.release();
    for commit in commits {
        ready(commit).unwrap();
    }
}

#[test]
fn pieces_that_are_committed_together_share_their_syncs() {
    let (disk, runtime) = (CrashDisk::default(), Inline::new());
    let store = open(&disk, &runtime);
    ready(store.create(new_task(1, 1000, 1))).unwrap();
    let before = disk.syncs();
    commit_together(&store, &runtime, 0..1);
    let lone = disk.syncs() - before;
    commit_together(&store, &runtime, 1..201);
    let together = disk.syncs() - before - lone;
    println!("syncs of one piece: {lone}, of 200 at a time: {together}");
    // The content once, the index as its transaction needs it.
    assert!(lone <= 3, "{lone}");
    // Who waits while the first is at the disk goes next, all at once: no more than two transactions.
    assert!(together <= 2 * lone, "{together}, {lone}");
    drop(store);
    disk.cut(Cut::LoseAll, &mut Dice(0));
    let store = open(&disk, &runtime);
    assert_eq!(ready(store.held(key(PieceKind::Piece, 1))).unwrap().len(), 201);
}

#[test]
fn a_store_of_many_pieces_opens_at_once() {
    const MANY: u32 = 100_000;
    let (disk, runtime) = (CrashDisk::default(), Inline::new());
    let store = open(&disk, &runtime);
    ready(store.create(new_task(1, MANY.into(), 1))).unwrap();
    for start in (0..MANY).step_by(1000) {
        commit_together(&store, &runtime, start..start + 1000);
    }
    drop(store);

    let before = disk.operations();
    let store = open(&disk, &runtime);
    let clean = disk.operations() - before;
    // One more commit, and the process is killed: nothing was closed.
    ready(store.pin(key(PieceKind::Piece, 1), true)).unwrap();
    disk.cut(Cut::LoseAll, &mut Dice(0));
    drop(store);
    let before = disk.operations();
    let store = open(&disk, &runtime);
    let recovered = disk.operations() - before;
    println!("operations to open {MANY} pieces: {clean} after a clean end, {recovered} after a power cut");
    // With debug assertions redb walks its pages at each opening (without, 15 operations were counted).
    let bound = u64::from(MANY) / 50;
    assert!(clean < bound, "{clean}");
    let task = ready(store.task(key(PieceKind::Piece, 1))).unwrap().unwrap();
    assert_eq!((task.held, task.pinned), (MANY.into(), true));
    assert!(recovered < bound, "{recovered}");
}

#[test]
fn a_store_of_many_tasks_opens_at_once() {
    use vortex_p2p::store::disk::ImportOptions;
    use vortex_p2p::wire::{Algorithm, PieceLength};
    const TASKS: u32 = 1000;
    const PIECES: u32 = 100;
    let (disk, runtime) = (CrashDisk::default(), Inline::new());
    let store = ready(DiskStore::open(Arc::new(disk.clone()), runtime.clone())).unwrap();
    let options = ImportOptions {
        kind: PieceKind::Piece,
        piece_length: Some(PieceLength::try_from(4).unwrap()),
        algorithm: Algorithm::Crc32,
    };
    for number in 0..TASKS {
        let content = number.to_be_bytes().repeat(PIECES as usize);
        ready(store.import_reader(std::io::Cursor::new(content), u64::from(4 * PIECES), options)).unwrap();
    }
    drop(store);
    let (before, begun) = (disk.operations(), std::time::Instant::now());
    let mut store = None;
    let cost = allocation_counter::measure(|| store = Some(open(&disk, &runtime)));
    let operations = disk.operations() - before;
    println!(
        "to open {TASKS} tasks of {PIECES} pieces: {operations} operations, {} allocations, {} KiB at most, {:?}",
        cost.count_total,
        cost.bytes_max >> 10,
        begun.elapsed()
    );
    let store = store.unwrap();
    let tasks = ready(store.tasks()).unwrap();
    assert_eq!(tasks.len(), TASKS as usize);
    assert!(tasks.iter().all(vortex_p2p::store::Task::is_complete));
    // By the task, and not by the piece. (With debug assertions redb walks its pages at each opening.)
    let pieces = u64::from(TASKS * PIECES);
    assert!(operations < pieces / 20, "{operations}");
    assert!(cost.count_total < pieces, "{}", cost.count_total);
}
