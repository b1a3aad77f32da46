//! Any damage to the index of a store: it is refused, with all content kept, or everything in it is there and right; also
//! after it was written to, closed and opened again. Damage to an index that a crash left may look like a torn commit: there the
//! commit before may come back.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use std::sync::{Arc, LazyLock};
use vortex_fuzz::world::{Inline, MemoryDisk, ready};
use vortex_p2p::store::disk::DiskStore;
use vortex_p2p::store::{NewTask, ParentId, PieceStore, Provenance, StoreError, TaskKey};
use vortex_p2p::wire::{Algorithm, Digest, Division, PieceKind, PieceLength, TaskId};

#[derive(Debug, Arbitrary)]
struct Input {
    crashed: bool,
    damage: Vec<Damage>,
}

/// Offsets are taken modulo the length of the file.
#[derive(Debug, Arbitrary)]
enum Damage {
    Write {
        at: u32,
        bytes: Vec<u8>,
    },
    /// Near the beginning: the layout, and the two commits that the file may stand for.
    Header {
        at: u8,
        second: bool,
        bytes: Vec<u8>,
    },
    Flip {
        at: u32,
        bit: u8,
    },
    /// A page in place of another.
    Page {
        from: u8,
        to: u8,
    },
    /// A page, or a sector of it, as it was before the last commits: a write that was lost.
    Former {
        page: u8,
        sector: Option<u8>,
    },
    Zero {
        page: u8,
        sector: Option<u8>,
    },
    Cut {
        to: u32,
    },
    Longer {
        by: u16,
        with: u8,
    },
}

const INDEX: &str = "index.redb";
const TASKS: u8 = 3;
const PIECES: u32 = 3;
const PIECE: usize = 50;
const PAGE: usize = 4096;
const SECTOR: usize = 512;

/// The disks that the damage is done to.
struct Disks {
    /// Some commits before the others.
    former: Vec<u8>,
    closed: MemoryDisk,
    crashed: MemoryDisk,
}

static DISKS: LazyLock<Disks> = LazyLock::new(|| {
    let disk = MemoryDisk::default();
    let store = open(&disk).expect("an empty disk");
    fill(&store, 0..1);
    let former = disk.file(INDEX).expect("the index");
    fill(&store, 1..TASKS);
    let crashed = disk.copy();
    drop(store);
    Disks { former, closed: disk, crashed }
});

fuzz_target!(|input: Input| {
    let disks = &*DISKS;
    let disk = if input.crashed { disks.crashed.copy() } else { disks.closed.copy() };
    let mut index = disk.file(INDEX).expect("the index");
    let before = index.clone();
    for damage in &input.damage {
        damage.strike(&mut index, &disks.former);
    }
    let same = index == before;
    disk.put(INDEX, index);
    let contents = disk.names();
    match open(&disk) {
        Ok(store) => {
            let all = !input.crashed || same;
            look(&store, all);
            // The allocator and the free pages are what only a writer relies on.
            let pinned = ready(store.pin(task(0).key, true)).is_ok();
            let extra = put(&store, 0, PIECES - 1).is_ok();
            assert!(!all || pinned && extra, "a store that was opened can be written to");
            drop(store);
            let store = open(&disk).expect("what was written and closed can be opened");
            look(&store, all);
            let piece = ready(store.piece(task(0).key.piece(PIECES - 1)));
            assert_eq!(piece.is_ok(), extra);
            if all {
                assert_eq!(disk.names(), contents, "content was taken away");
            }
        }
        Err(StoreError::Corrupt { .. }) => {
            assert!(!same, "nothing was changed");
            assert_eq!(disk.names(), contents, "content was taken away");
        }
        Err(error) => panic!("{error:?}"),
    }
});

impl Damage {
    fn strike(&self, index: &mut Vec<u8>, former: &[u8]) {
        let length = index.len().max(1);
        let part = |page: u8, sector: Option<u8>| {
            let page = usize::from(page) * PAGE % length;
            match sector {
                Some(sector) => (page + usize::from(sector) % (PAGE / SECTOR) * SECTOR, SECTOR),
                None => (page, PAGE),
            }
        };
        match self {
            Self::Write { at, bytes } => write(index, *at as usize % length, bytes),
            Self::Header { at, second, bytes } => {
                write(index, usize::from(*at) + if *second { 128 } else { 0 }, bytes);
            }
            Self::Flip { at, bit } => {
                if let Some(byte) = index.get_mut(*at as usize % length) {
                    *byte ^= 1 << (bit % 8);
                }
            }
            Self::Page { from, to } => {
                let from = usize::from(*from) * PAGE % length;
                let page = index[from.min(index.len())..index.len().min(from + PAGE)].to_vec();
                write(index, usize::from(*to) * PAGE % length, &page);
            }
            Self::Former { page, sector } => {
                let (at, length) = part(*page, *sector);
                write(index, at, former.get(at..former.len().min(at + length)).unwrap_or_default());
            }
            Self::Zero { page, sector } => {
                let (at, length) = part(*page, *sector);
                write(index, at, &vec![0; length]);
            }
            Self::Cut { to } => index.truncate(*to as usize % length),
            Self::Longer { by, with } => index.resize(index.len() + usize::from(*by), *with),
        }
    }
}

/// Writes as much of `bytes` as there is room for.
fn write(index: &mut [u8], at: usize, bytes: &[u8]) {
    for (old, new) in index.iter_mut().skip(at).zip(bytes) {
        *old = *new;
    }
}

fn open(disk: &MemoryDisk) -> Result<DiskStore, StoreError> {
    ready(DiskStore::open(Arc::new(disk.clone()), Arc::new(Inline)))
}

fn task(which: u8) -> NewTask {
    let piece_length = PieceLength::try_from(PIECE as u64).expect("a piece length");
    let division = Division::new(u64::from(PIECES) * PIECE as u64, piece_length).expect("a division");
    let key = TaskKey { kind: PieceKind::Piece, id: TaskId::from_sha256([which; 32]) };
    NewTask { key, division, digest: None }
}

fn content(which: u8, number: u32) -> Vec<u8> {
    (0..PIECE).map(|at| at as u8 ^ which << 4 ^ number as u8).collect()
}

/// Tasks, with all of their pieces but the last.
fn fill(store: &DiskStore, tasks: std::ops::Range<u8>) {
    for which in tasks {
        ready(store.create(task(which))).expect("a task");
        for number in 0..PIECES - 1 {
            put(store, which, number).expect("a piece");
        }
    }
}

fn put(store: &DiskStore, which: u8, number: u32) -> Result<(), StoreError> {
    let content = content(which, number);
    let digest = Digest::of(Algorithm::Crc32, &content);
    let provenance = Provenance { digest, parent_id: ParentId::new("peer"), cost: 1, created_at: 2 };
    let mut writer = ready(store.writer(task(which).key.piece(number)))?;
    ready(writer.write(content.into()))?;
    ready(writer.commit(provenance))
}

/// What is held has the right bytes and the right digest; `all` of it is held.
fn look(store: &DiskStore, all: bool) {
    for which in 0..TASKS {
        for number in 0..PIECES - 1 {
            match ready(store.piece(task(which).key.piece(number))) {
                Ok(piece) => {
                    let expected = content(which, number);
                    assert_eq!(piece.provenance.digest, Digest::of(Algorithm::Crc32, &expected));
                    assert_eq!(ready(piece.content.read(0, usize::MAX)).expect("its bytes"), expected);
                }
                Err(StoreError::Missing(_)) if !all => {}
                Err(error) => panic!("piece {number} of {which}: {error}"),
            }
        }
    }
}
