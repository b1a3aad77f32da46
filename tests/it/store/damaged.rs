//! An index whose bytes are others than those that were written: it is refused, with all content kept, or everything in it is
//! right. Nothing panics, neither while it is opened nor while it is closed.

use super::contract::{bytes, key, new_task, provenance};
use super::crash_disk::{CrashDisk, Cut, Dice};
use super::world::{Inline, ready};
use bytes::Bytes;
use proptest::prelude::*;
use std::sync::Arc;
use vortex_p2p::store::disk::DiskStore;
use vortex_p2p::store::{Missing, NewTask, PieceStore, StoreError};
use vortex_p2p::wire::PieceKind;

const INDEX: &str = "index.redb";
const TASKS: u8 = 3;
const PIECES: u32 = 3;
const PIECE: u64 = 100;
const PAGE: usize = 4096;
/// Magic number, layout and the two commits that the file may stand for.
const HEADER: usize = 320;

fn task(which: u8) -> NewTask {
    new_task(which, u64::from(PIECES) * PIECE, PIECE)
}

fn content(which: u8, number: u32) -> Bytes {
    bytes(PIECE as usize, which * 16 + number as u8)
}

fn open(disk: &CrashDisk) -> Result<DiskStore, StoreError> {
    ready(DiskStore::open(Arc::new(disk.clone()), Inline::new()))
}

/// Three tasks with the first pieces of each.
fn fill(store: &DiskStore) {
    for which in 0..TASKS {
        ready(store.create(task(which))).unwrap();
        for number in 0..PIECES - 1 {
            put(store, which, number).unwrap();
        }
    }
}

fn put(store: &DiskStore, which: u8, number: u32) -> Result<(), StoreError> {
    let mut writer = ready(store.writer(task(which).key.piece(number)))?;
    ready(writer.write(content(which, number)))?;
    ready(writer.commit(provenance(&content(which, number))))
}

/// What is held has the right bytes; `all` of it is held.
fn look(store: &DiskStore, all: bool) {
    for which in 0..TASKS {
        for number in 0..PIECES - 1 {
            match ready(store.piece(task(which).key.piece(number))) {
                Ok(piece) => {
                    assert_eq!(ready(piece.content.read(0, usize::MAX)).unwrap(), content(which, number));
                    assert_eq!(piece.provenance, provenance(&content(which, number)));
                }
                Err(StoreError::Missing(_)) if !all => {}
                Err(error) => panic!("piece {number} of {which}: {error}"),
            }
        }
    }
}

/// Opens the store on an index that `damage` was done to, looks, writes, closes, opens it again, and puts the index back.
/// Returns whether it was opened.
fn with_damage(disk: &CrashDisk, all: bool, damage: impl FnOnce(&mut Vec<u8>)) -> bool {
    let (mut good, contents) = (Vec::new(), contents(disk));
    disk.edit(INDEX, |bytes| {
        good.clone_from(bytes);
        damage(bytes);
    });
    let opened = match open(disk) {
        Ok(store) => {
            look(&store, all);
            ready(store.pin(task(0).key, true)).unwrap();
            drop(store);
            look(&open(disk).unwrap(), all);
            true
        }
        Err(StoreError::Corrupt { .. }) => false,
        Err(error) => panic!("{error:?}"),
    };
    if all || !opened {
        assert_eq!(self::contents(disk), contents, "no content was taken away");
    }
    disk.edit(INDEX, |bytes| *bytes = good);
    opened
}

fn contents(disk: &CrashDisk) -> usize {
    disk.names().iter().filter(|name| name.ends_with(".content")).count()
}

fn closed() -> CrashDisk {
    let disk = CrashDisk::default();
    fill(&open(&disk).unwrap());
    disk
}

#[test]
fn any_bit_of_the_header_may_be_another() {
    let disk = closed();
    let mut opened = 0;
    for at in 0..HEADER {
        for bit in 0..8 {
            opened += u32::from(with_damage(&disk, true, |index| index[at] ^= 1 << bit));
        }
    }
    // Padding, and what is recounted at each opening.
    assert!((100..1500).contains(&opened), "{opened} of {}", 8 * HEADER);
    assert!(with_damage(&disk, true, |_| {}));
}

#[test]
fn any_page_may_be_gone_or_another() {
    let disk = closed();
    let mut pages = 0;
    disk.edit(INDEX, |index| pages = index.len() / PAGE);
    assert!(pages > 10);
    let mut refused = 0;
    let mut hit = |damage: &dyn Fn(&mut [u8])| {
        refused += u32::from(!with_damage(&disk, true, |index| damage(index)));
    };
    for page in 0..pages {
        let page = page * PAGE..(page + 1) * PAGE;
        hit(&|index| index[page.clone()].fill(0));
        hit(&|index| index[page.clone()].fill(0xFF));
        for at in page.clone().step_by(61) {
            hit(&|index| index[at] ^= 0x10);
        }
        for other in (0..pages).map(|other| other * PAGE) {
            hit(&|index| index.copy_within(page.clone(), other));
        }
    }
    assert!(refused > 50, "{refused}");
}

#[test]
fn any_end_may_be_missing() {
    let disk = closed();
    let mut length = 0;
    disk.edit(INDEX, |index| length = index.len());
    for cut in (0..length).step_by(512).chain([1, 8, 9, 63, 64, 319, 320, length - 1]) {
        assert!(!with_damage(&disk, true, |index| index.truncate(cut)), "cut to {cut} bytes");
    }
    for more in [1, 512, PAGE, 16 * PAGE, 1 << 20] {
        with_damage(&disk, true, |index| index.resize(index.len() + more, 0));
    }
}

/// A part of the index that is damaged.
#[derive(Debug, Clone)]
struct Hit {
    at: prop::sample::Index,
    bytes: Vec<u8>,
    in_header: bool,
}

fn hits() -> impl Strategy<Value = Vec<Hit>> {
    let hit = (any::<prop::sample::Index>(), prop::collection::vec(any::<u8>(), 1..40), any::<bool>());
    let hit = hit.prop_map(|(at, bytes, in_header)| Hit { at, bytes, in_header });
    prop::collection::vec(hit, 1..6)
}

fn strike(index: &mut [u8], hits: &[Hit]) {
    for Hit { at, bytes, in_header } in hits {
        let at = at.index(if *in_header { HEADER } else { index.len() });
        for (old, new) in index[at..].iter_mut().zip(bytes) {
            *old = *new;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn after_a_clean_end(hits in hits()) {
        with_damage(&closed(), true, |index| strike(index, &hits));
    }

    /// After a power cut the last commit can't be told from one that was torn: the one before may come back.
    #[test]
    fn after_a_power_cut(hits in hits(), seed in any::<u64>()) {
        let disk = CrashDisk::default();
        let store = open(&disk).unwrap();
        fill(&store);
        disk.cut(Cut::Tear, &mut Dice(seed));
        drop(store);
        with_damage(&disk, false, |index| strike(index, &hits));
    }

    /// The file changes under a store that is open: jobs may fail, and what they give is right.
    #[test]
    fn while_it_is_open(hits in hits(), seed in any::<u64>(), reopened in any::<bool>()) {
        let disk = closed();
        let store = open(&disk).unwrap();
        if !reopened {
            look(&store, true);
        }
        disk.edit(INDEX, |index| strike(index, &hits));
        let mut dice = Dice(seed);
        for _ in 0..12 {
            let (which, number) = (dice.roll(TASKS.into()) as u8, dice.roll(PIECES.into()) as u32);
            let key = task(which).key;
            match dice.roll(5) {
                0 => drop(put(&store, which, number)),
                1 => drop(ready(store.pin(key, true))),
                2 => drop(ready(store.held(key))),
                3 => drop(ready(store.delete(task(2).key))),
                _ => {
                    if let Ok(piece) = ready(store.piece(key.piece(number)))
                        && ready(piece.verify()).is_ok()
                    {
                        assert_eq!(ready(piece.content.read(0, usize::MAX)).unwrap(), content(which, number));
                    }
                }
            }
        }
        drop(store);
        match open(&disk) {
            Ok(store) => drop(ready(store.tasks()).unwrap()),
            Err(StoreError::Corrupt { .. }) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
}

/// redb reads pages again that it has checked, and panics at what it does not understand of them.
#[test]
fn any_page_may_change_while_it_is_open() {
    let mut pages = 0;
    closed().edit(INDEX, |index| pages = index.len() / PAGE);
    let mut failed = 0;
    for (page, byte) in (1..pages).flat_map(|page| [(page, 0), (page, 0xFF), (page, 2)]) {
        let disk = closed();
        let store = open(&disk).unwrap();
        disk.edit(INDEX, |index| index[page * PAGE..(page + 1) * PAGE].fill(byte));
        let mut changes = vec![ready(store.pin(task(0).key, true)), put(&store, 1, PIECES - 1)];
        changes.push(ready(store.delete(task(2).key)).map(drop));
        for error in changes.iter().filter_map(|change| change.as_ref().err()) {
            assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
            failed += 1;
        }
    }
    assert!(failed > 0, "nothing was met");
}

#[test]
fn an_empty_index_beside_content_is_refused() {
    let disk = closed();
    assert!(!with_damage(&disk, true, Vec::clear));
    let store = open(&disk).unwrap();
    assert_eq!(ready(store.tasks()).unwrap().len(), usize::from(TASKS));
    let missing = ready(store.piece(key(PieceKind::Cache, 0).piece(0))).unwrap_err();
    assert!(matches!(missing, StoreError::Missing(Missing::Task)), "{missing:?}");
}
