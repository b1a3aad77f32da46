//! Files into the store and out of it.

use super::contract::{bytes, key, new_task, provenance};
use super::crash_disk::{CrashDisk, Cut, Dice, Fault};
use super::world::{Inline, ready};
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use vortex_p2p::store::disk::{
    Disk, DiskStore, ExportError, ImportError, ImportOptions, MAX_IMPORT_PIECES, OsDisk,
};
use vortex_p2p::store::{Manifest, Missing, NewTask, PieceStore, StoreError, Task};
use vortex_p2p::wire::{Algorithm, Digest, PieceKind, PieceLength, TaskId};

const MIB: usize = 1 << 20;

fn options(piece_length: u64) -> ImportOptions {
    ImportOptions {
        kind: PieceKind::Persistent,
        piece_length: Some(PieceLength::try_from(piece_length).unwrap()),
        algorithm: Algorithm::Crc32,
    }
}

fn open(disk: impl Disk) -> DiskStore {
    ready(DiskStore::open(Arc::new(disk), Inline::new())).unwrap()
}

fn sha256(content: &[u8]) -> [u8; 32] {
    match Digest::of(Algorithm::Sha256, content) {
        Digest::Sha256(hash) => hash,
        other => panic!("{other}"),
    }
}

/// Imports, checks each piece and the names, exports.
fn there_and_back(directory: &Path, store: &DiskStore, content: &[u8], options: ImportOptions) -> Task {
    let (source, target) = (directory.join("source"), directory.join("target"));
    std::fs::write(&source, content).unwrap();
    let task = ready(store.import(&source, options)).unwrap();
    assert_eq!(task.key.id, TaskId::from_sha256(sha256(content)));
    assert_eq!((task.key.kind, task.digest), (options.kind, Some(Digest::Sha256(sha256(content)))));
    assert_eq!(task.division.length(), content.len() as u64);
    assert!(task.is_complete());
    let manifest = ready(Manifest::of(store, task.key)).unwrap();
    for (number, digest) in (0..).zip(manifest.pieces()) {
        let piece = ready(store.piece(task.key.piece(number))).unwrap();
        let start = piece.span.offset as usize;
        let expected = &content[start..start + piece.span.length.get() as usize];
        assert_eq!(ready(piece.content.read(0, usize::MAX)).unwrap(), expected);
        assert_eq!(*digest, Digest::of(options.algorithm, expected));
        assert_eq!(piece.provenance.digest, *digest);
    }
    ready(store.export(task.key, &target)).unwrap();
    assert!(std::fs::read(&target).unwrap() == content);
    task
}

#[test]
fn files_of_every_awkward_length_come_back() {
    //= VTX-REQ-005 test
    //= VTX-REQ-006 test
    //= VTX-REQ-007 test
    let directory = tempfile::tempdir().unwrap();
    let store = open(OsDisk::open(directory.path().join("store")).unwrap());
    for length in [0, 1, 99, 100, 101, 199, 200, 201, 1000] {
        let task = there_and_back(directory.path(), &store, &bytes(length, 1), options(100));
        assert_eq!(task.division.pieces(), (length as u64).div_ceil(100).max(1));
    }
    // Around the buffers of four MiB, in pieces that divide them, do not, and are larger.
    for (seed, (length, piece_length)) in (2..).zip([
        (4 * MIB - 1, MIB),
        (4 * MIB, MIB),
        (4 * MIB, 3 * MIB + 1),
        (4 * MIB + 1, 4 * MIB),
        (8 * MIB, 5 * MIB),
        (8 * MIB + 5, 3 * MIB + 1),
    ]) {
        there_and_back(directory.path(), &store, &bytes(length, seed), options(piece_length as u64));
    }
    let left = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(left.count(), 3, "store, source, target: no unfinished file is left");
}

#[test]
fn the_rule_of_dragonfly_is_the_default() {
    //= VTX-REQ-009 test
    let directory = tempfile::tempdir().unwrap();
    let store = open(OsDisk::open(directory.path().join("store")).unwrap());
    for kind in PieceKind::ALL {
        for algorithm in Algorithm::ALL {
            let options = ImportOptions { kind, piece_length: None, algorithm };
            let content = bytes(5 * MIB, algorithm as u8);
            let task = there_and_back(directory.path(), &store, &content, options);
            assert_eq!((task.division.piece_length().get(), task.division.pieces()), (4 << 20, 2));
        }
    }
}

#[test]
fn importing_twice_keeps_one() {
    let disk = CrashDisk::default();
    let store = open(disk.clone());
    let content = bytes(250, 1);
    let import = |options| ready(store.import_reader(io::Cursor::new(content.clone()), 250, options));
    let first = import(options(100)).unwrap();
    assert_eq!(import(options(100)).unwrap(), first);
    let error = import(options(50)).unwrap_err();
    assert!(matches!(error, ImportError::Store(StoreError::Conflict { what: "piece length" })), "{error:?}");
    assert_eq!(contents(&disk), 1, "what was not kept is removed");
    // Under another kind it is another task.
    let other = import(ImportOptions { kind: PieceKind::Cache, ..options(100) }).unwrap();
    assert_eq!(other.key.id, first.key.id);
    assert_eq!(contents(&disk), 2);
}

#[test]
fn an_import_completes_what_was_there_in_part() {
    let disk = CrashDisk::default();
    let store = open(disk.clone());
    let content = bytes(250, 1);
    let key =
        vortex_p2p::store::TaskKey { kind: PieceKind::Persistent, id: TaskId::from_sha256(sha256(&content)) };
    ready(store.create(NewTask { key, ..new_task(1, 250, 100) })).unwrap();
    let mut writer = ready(store.writer(key.piece(1))).unwrap();
    ready(writer.write(content.slice(100..200))).unwrap();
    let task = ready(store.import_reader(io::Cursor::new(content.clone()), 250, options(100))).unwrap();
    assert!(task.is_complete());
    assert_eq!(ready(store.tasks()).unwrap(), [task]);
    assert_eq!(contents(&disk), 1);
    let error = ready(writer.commit(provenance(&content[100..200]))).unwrap_err();
    assert!(matches!(error, StoreError::Missing(Missing::Task)), "{error:?}");
}

fn contents(disk: &CrashDisk) -> usize {
    disk.names().iter().filter(|name| name.ends_with(".content")).count()
}

#[test]
fn a_source_that_changes_is_not_imported() {
    let disk = CrashDisk::default();
    let store = open(disk.clone());
    for (has, declared) in [(9, 10), (11, 10), (0, 1), (1, 0), (100, 101), (201, 200)] {
        let source = io::Cursor::new(bytes(has, 1));
        let error = ready(store.import_reader(source, declared, options(100))).unwrap_err();
        assert!(matches!(error, ImportError::Changed), "{has} {declared}: {error:?}");
    }
    // Same length, other bytes: the time of the last change tells.
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("source");
    std::fs::write(&path, bytes(300, 1)).unwrap();
    let touched = Touch { path: path.clone(), disk: disk.clone() };
    let error = ready(open(touched).import(&path, options(100))).unwrap_err();
    assert!(matches!(error, ImportError::Changed), "{error:?}");
    assert_eq!(contents(&disk), 0);
}

/// A disk that, whenever a file is made, changes the source of the import.
#[derive(Debug)]
struct Touch {
    path: std::path::PathBuf,
    disk: CrashDisk,
}

impl Disk for Touch {
    fn open(
        &self,
        name: &str,
        mode: vortex_p2p::store::disk::OpenMode,
    ) -> io::Result<Arc<dyn vortex_p2p::store::disk::DiskFile>> {
        let file = std::fs::File::options().write(true).open(&self.path)?;
        let time = std::time::Duration::from_secs(self.disk.operations());
        file.set_modified(std::time::UNIX_EPOCH + time)?;
        self.disk.open(name, mode)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }
    fn sync_names(&self) -> io::Result<()> {
        self.disk.sync_names()
    }
    fn lock(&self) -> io::Result<Option<vortex_p2p::store::disk::DiskLock>> {
        Ok(Some(Box::new(())))
    }
}

#[test]
fn what_can_not_be_imported_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(CrashDisk::default());
    let error = ready(store.import(directory.path(), options(100))).unwrap_err();
    assert!(matches!(error, ImportError::NotAFile), "{error:?}");
    let error = ready(store.import(directory.path().join("none"), options(100))).unwrap_err();
    assert!(matches!(error, ImportError::Source(_)), "{error:?}");
    let many = MAX_IMPORT_PIECES + 1;
    let error = ready(store.import_reader(io::repeat(0).take(many), many, options(1))).unwrap_err();
    assert!(matches!(error, ImportError::TooManyPieces { pieces } if pieces == many), "{error:?}");

    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("broken"))
        }
    }
    let error = ready(store.import_reader(Broken, 5, options(1))).unwrap_err();
    assert!(matches!(error, ImportError::Source(_)), "{error:?}");
    assert!(ready(store.tasks()).unwrap().is_empty());
}

#[test]
fn an_import_survives_a_power_cut_whole_or_not_at_all() {
    let content = bytes(2500, 7);
    let mut outcomes = [0, 0];
    for at in 0..200 {
        let disk = CrashDisk::default();
        let store = open(disk.clone());
        disk.cut_after(at);
        let imported = ready(store.import_reader(io::Cursor::new(content.clone()), 2500, options(1000)));
        disk.cut([Cut::KeepAll, Cut::LoseAll, Cut::Tear][at as usize % 3], &mut Dice(at));
        drop(store);
        let store = open(disk.clone());
        let tasks = ready(store.tasks()).unwrap();
        assert!(imported.is_err() || tasks.len() == 1, "what was acknowledged is there");
        outcomes[tasks.len()] += 1;
        assert_eq!(contents(&disk), tasks.len());
        for task in tasks {
            assert!(task.is_complete());
            for number in 0..3 {
                ready(ready(store.piece(task.key.piece(number))).unwrap().verify()).unwrap();
            }
        }
    }
    assert!(outcomes.iter().all(|count| *count > 5), "{outcomes:?}");
}

#[test]
fn a_full_disk_ends_an_import() {
    let disk = CrashDisk::default();
    let store = open(disk.clone());
    for after in 0..4 {
        disk.fail(Fault::Full, after);
        let error = ready(store.import_reader(io::Cursor::new(bytes(10, 1)), 10, options(5))).unwrap_err();
        assert!(matches!(error, ImportError::Store(StoreError::Full { .. })), "{after}: {error:?}");
        disk.heal();
        assert!(ready(store.tasks()).unwrap().is_empty());
    }
    assert!(ready(store.import_reader(io::Cursor::new(bytes(10, 1)), 10, options(5))).is_ok());
    assert_eq!(contents(&disk), 1);
}

#[test]
fn an_export_is_whole_or_not_there() {
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("target");
    std::fs::write(&target, "before").unwrap();
    let disk = CrashDisk::default();
    let store = open(disk.clone());
    let untouched = || {
        assert_eq!(std::fs::read(&target).unwrap(), b"before");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "no unfinished file is left");
    };
    let error = ready(store.export(key(PieceKind::Piece, 9), &target)).unwrap_err();
    assert!(matches!(error, ExportError::Store(StoreError::Missing(Missing::Task))), "{error:?}");

    let content = bytes(250, 1);
    let task = ready(store.import_reader(io::Cursor::new(content.clone()), 250, options(100))).unwrap();
    let name = disk.names().into_iter().find(|name| name.ends_with(".content")).unwrap();
    disk.flip(&name, 150);
    let error = ready(store.export(task.key, &target)).unwrap_err();
    assert!(matches!(error, ExportError::Store(StoreError::Damaged { number: 1 })), "{error:?}");
    untouched();
    // The damage is known from here on.
    let error = ready(store.export(task.key, &target)).unwrap_err();
    assert!(matches!(error, ExportError::Incomplete { held: 2, pieces: 3 }), "{error:?}");
    untouched();
    let mut writer = ready(store.writer(task.key.piece(1))).unwrap();
    ready(writer.write(content.slice(100..200))).unwrap();
    ready(writer.commit(provenance(&content[100..200]))).unwrap();
    let error = ready(store.export(task.key, directory.path())).unwrap_err();
    assert!(matches!(error, ExportError::Target(_)), "{error:?}");
    untouched();
    disk.fail(Fault::Read, 1);
    assert!(ready(store.export(task.key, &target)).is_err());
    untouched();
    ready(store.export(task.key, &target)).unwrap();
    assert_eq!(std::fs::read(&target).unwrap(), content);
}

/// What a task becomes that is given away from a store on `disk`, and what is left of it there.
fn given_away(directory: &Path, disk: impl Disk) {
    let store = open(disk);
    let (content, target) = (bytes(250, 1), directory.join("target"));
    let task = ready(store.import_reader(io::Cursor::new(content.clone()), 250, options(100))).unwrap();
    // In place of a directory it is not put, and it stays whole.
    let error = ready(store.give_away(task.key, directory)).unwrap_err();
    assert!(matches!(error, ExportError::Target(_)), "{error:?}");
    assert!(ready(store.task(task.key)).unwrap().unwrap().is_complete());
    std::fs::write(&target, "before").unwrap();
    assert_eq!(ready(store.give_away(task.key, &target)).unwrap(), Digest::Sha256(sha256(&content)));
    assert_eq!(std::fs::read(&target).unwrap(), content);
    assert_eq!(ready(store.task(task.key)).unwrap(), None);
    let error = ready(store.give_away(task.key, &target)).unwrap_err();
    assert!(matches!(error, ExportError::Store(StoreError::Missing(Missing::Task))), "{error:?}");
    assert_eq!(std::fs::read(&target).unwrap(), content);
}

#[test]
fn what_is_given_away_is_moved_and_not_copied() {
    use std::os::unix::fs::MetadataExt as _;
    let directory = tempfile::tempdir().unwrap();
    let disk = OsDisk::open(directory.path().join("store")).unwrap();
    given_away(directory.path(), disk);
    let names = |directory: &Path| {
        std::fs::read_dir(directory).unwrap().inspect(|entry| assert!(entry.is_ok())).count()
    };
    assert_eq!(names(directory.path()), 2, "the target and the store");
    // The same file, under another name.
    let store = open(OsDisk::open(directory.path().join("store")).unwrap());
    let task = ready(store.import_reader(io::Cursor::new(bytes(250, 1)), 250, options(100))).unwrap();
    let inode = |path: &Path| std::fs::metadata(path).unwrap().ino();
    let before = inode(&first_content(&directory.path().join("store")));
    ready(store.give_away(task.key, directory.path().join("target"))).unwrap();
    assert_eq!(inode(&directory.path().join("target")), before);
}

#[test]
fn a_disk_that_moves_nothing_out_gives_a_copy_away() {
    let directory = tempfile::tempdir().unwrap();
    let disk = CrashDisk::default();
    given_away(directory.path(), disk.clone());
    assert_eq!(contents(&disk), 0, "the content went with its task");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "no unfinished file is left");
}

#[test]
fn a_damaged_piece_is_not_given_away() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(OsDisk::open(directory.path().join("store")).unwrap());
    let task = ready(store.import_reader(io::Cursor::new(bytes(250, 1)), 250, options(100))).unwrap();
    let content = first_content(&directory.path().join("store"));
    let mut damaged = std::fs::read(&content).unwrap();
    damaged[150] ^= 1;
    std::fs::write(&content, damaged).unwrap();
    let target = directory.path().join("target");
    let error = ready(store.give_away(task.key, &target)).unwrap_err();
    assert!(matches!(error, ExportError::Store(StoreError::Damaged { number: 1 })), "{error:?}");
    assert!(!target.exists());
    assert_eq!(ready(store.task(task.key)).unwrap().unwrap().held, 2, "the others are kept");
}

/// Bytes of the disk that the content of the first task has.
fn blocks(directory: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(first_content(directory)).unwrap().blocks() * 512
}

#[test]
fn a_length_that_somebody_says_takes_no_room() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(OsDisk::open(directory.path()).unwrap());
    // More than there is room for: it would be begun in vain.
    let error = ready(store.create(new_task(2, 1 << 60, 1 << 30))).unwrap_err();
    assert!(matches!(error, StoreError::Full { .. }), "{error:?}");
    let content =
        |entry: io::Result<std::fs::DirEntry>| entry.unwrap().path().extension() == Some("content".as_ref());
    assert_eq!(
        std::fs::read_dir(directory.path()).unwrap().filter_map(|it| content(it).then_some(())).count(),
        0
    );
    let task = new_task(1, 1 << 30, MIB as u64);
    ready(store.create(task)).unwrap();
    assert_eq!(std::fs::metadata(first_content(directory.path())).unwrap().len(), 1 << 30);
    assert!(blocks(directory.path()) < 64 << 10, "{}", blocks(directory.path()));
    let piece = bytes(MIB, 3);
    let mut writer = ready(store.writer(task.key.piece(700))).unwrap();
    ready(writer.write(piece.clone())).unwrap();
    ready(writer.commit(provenance(&piece))).unwrap();
    let taken = blocks(directory.path());
    assert!(taken < 2 * MIB as u64, "{taken}");
}

#[test]
fn pieces_that_are_right_do_not_make_the_whole_right() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(CrashDisk::default());
    let digest = Some(Digest::of(Algorithm::Sha256, b"something else"));
    let task = NewTask { digest, ..new_task(1, 10, 10) };
    ready(store.create(task)).unwrap();
    let content = bytes(10, 1);
    let mut writer = ready(store.writer(task.key.piece(0))).unwrap();
    ready(writer.write(content.clone())).unwrap();
    ready(writer.commit(provenance(&content))).unwrap();
    let error = ready(store.export(task.key, directory.path().join("target"))).unwrap_err();
    assert!(matches!(error, ExportError::WrongDigest { .. }), "{error:?}");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn sendfile_finds_the_piece_in_its_file() {
    use std::os::unix::fs::FileExt;
    let directory = tempfile::tempdir().unwrap();
    let store = open(OsDisk::open(directory.path()).unwrap());
    let content = bytes(250, 1);
    let task = ready(store.import_reader(io::Cursor::new(content.clone()), 250, options(100))).unwrap();
    let piece = ready(store.piece(task.key.piece(2))).unwrap();
    let (file, offset) = piece.content.file().unwrap();
    let mut read = [0; 50];
    file.read_exact_at(&mut read, offset).unwrap();
    assert_eq!(read, content[200..]);
    // A file that someone cut is damage, not a short answer.
    std::fs::File::options().write(true).open(first_content(directory.path())).unwrap().set_len(220).unwrap();
    assert!(matches!(ready(piece.content.read(0, 50)), Err(StoreError::Damaged { number: 2 })));
}

fn first_content(directory: &Path) -> std::path::PathBuf {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.into_iter().find(|path| path.extension().is_some_and(|it| it == "content")).unwrap()
}

#[cfg(feature = "tokio-runtime")]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn import_serve_delete_and_collect_at_the_same_time() {
    use bytes::Bytes;
    use vortex_p2p::runtime::TokioRuntime;
    use vortex_p2p::store::Keep;
    use vortex_p2p::wire::Division;
    let directory = tempfile::tempdir().unwrap();
    let disk = Arc::new(OsDisk::open(directory.path()).unwrap());
    let store = DiskStore::open(disk, Arc::new(TokioRuntime)).await.unwrap();
    let division = Division::new(40_000, PieceLength::try_from(1000).unwrap()).unwrap();
    let mut jobs = Vec::new();
    for worker in 0..8_u8 {
        let store = store.clone();
        jobs.push(tokio::spawn(async move {
            for round in 0..6_u8 {
                let task = NewTask {
                    key: key(PieceKind::ALL[usize::from(worker % 4)], worker / 4),
                    division,
                    digest: None,
                };
                match (worker + round) % 4 {
                    0 => {
                        let content = io::Cursor::new(bytes(9000, round));
                        match store.import_reader(content, 9000, options(1000)).await {
                            Ok(_) | Err(ImportError::Raced) => {}
                            Err(error) => panic!("{error}"),
                        }
                    }
                    1 => drop(store.delete(task.key).await.unwrap()),
                    2 => drop(store.collect(Keep { bytes: Some(80_000), age: None }).await.unwrap()),
                    _ => {}
                }
                store.create(task).await.unwrap();
                let pieces = (0..40).map(|number| {
                    let store = store.clone();
                    async move {
                        let content: Bytes = bytes(1000, number as u8);
                        let mut writer = match store.writer(task.key.piece(number)).await {
                            Ok(writer) => writer,
                            Err(
                                StoreError::Held { .. } | StoreError::Busy { .. } | StoreError::Missing(_),
                            ) => return,
                            Err(error) => panic!("{error}"),
                        };
                        writer.write(content.clone()).await.unwrap();
                        match writer.commit(provenance(&content)).await {
                            Ok(()) | Err(StoreError::Missing(Missing::Task)) => {}
                            Err(error) => panic!("{error}"),
                        }
                    }
                });
                futures_util::future::join_all(pieces).await;
                for known in store.tasks().await.unwrap() {
                    let Ok(held) = store.held(known.key).await else { continue };
                    for number in held {
                        match store.piece(known.key.piece(number)).await {
                            Ok(piece) => piece.verify().await.unwrap(),
                            Err(StoreError::Missing(_)) => {}
                            Err(error) => panic!("{error}"),
                        }
                    }
                }
            }
        }));
    }
    for job in jobs {
        job.await.unwrap();
    }
    for task in store.tasks().await.unwrap() {
        assert_eq!(store.held(task.key).await.unwrap().len(), task.held, "the count is that of the pieces");
    }
}
