//! A store whose index was damaged in any bytes: it opens or says why not, and reads what it can. That a piece is what its
//! digest says is for whoever reads it to verify.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, LazyLock, Mutex};
use vortex_p2p::runtime::TokioRuntime;
use vortex_p2p::store::disk::{Disk, DiskFile, DiskLock, DiskStore, ImportOptions, OpenMode};
use vortex_p2p::store::{Keep, PieceStore as _};
use vortex_p2p::wire::{Algorithm, PieceKind, PieceLength};

#[derive(Debug, Arbitrary)]
struct Damage {
    at: u32,
    bytes: Vec<u8>,
}

/// Files in memory. Nothing is lost here: that is for other tests.
#[derive(Debug, Default, Clone)]
struct Memory(Arc<Mutex<BTreeMap<String, Arc<Bytes>>>>);

#[derive(Debug, Default)]
struct Bytes(Mutex<Vec<u8>>);

impl Disk for Memory {
    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut files = self.0.lock().unwrap();
        match (files.get(name), mode) {
            (Some(file), OpenMode::Existing) => Ok(file.clone()),
            (Some(_), OpenMode::New) => Err(io::ErrorKind::AlreadyExists.into()),
            (None, OpenMode::Existing) => Err(io::ErrorKind::NotFound.into()),
            (None, OpenMode::New) => {
                let file = Arc::new(Bytes::default());
                files.insert(name.to_owned(), file.clone());
                Ok(file)
            }
        }
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.lock().unwrap().remove(name).map(drop).ok_or(io::ErrorKind::NotFound.into())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = self.0.lock().unwrap();
        let file = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), file);
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.lock().unwrap().keys().cloned().collect())
    }

    fn sync_names(&self) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self) -> io::Result<Option<DiskLock>> {
        Ok(Some(Box::new(())))
    }
}

impl DiskFile for Bytes {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.0.lock().unwrap();
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let rest = bytes.get(from..).unwrap_or_default();
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }

    fn write_all_at(&self, offset: u64, new: &[u8]) -> io::Result<()> {
        let mut bytes = self.0.lock().unwrap();
        let end = room(offset.saturating_add(new.len() as u64))?;
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[end - new.len()..end].copy_from_slice(new);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.lock().unwrap().resize(room(length)?, 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

/// The disk has 64 MiB.
fn room(length: u64) -> io::Result<usize> {
    usize::try_from(length).ok().filter(|length| *length <= 64 << 20).ok_or(io::ErrorKind::StorageFull.into())
}

static RUNTIME: LazyLock<tokio::runtime::Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_current_thread().build().unwrap());

/// A store with a task of five pieces, closed.
static WHOLE: LazyLock<BTreeMap<String, Vec<u8>>> = LazyLock::new(|| {
    let disk = Memory::default();
    RUNTIME.block_on(async {
        let store = DiskStore::open(Arc::new(disk.clone()), Arc::new(TokioRuntime)).await.unwrap();
        let options = ImportOptions {
            kind: PieceKind::Piece,
            piece_length: Some(PieceLength::try_from(20).unwrap()),
            algorithm: Algorithm::Crc32,
        };
        let path = std::env::temp_dir().join(format!("vortex-fuzz-{}", std::process::id()));
        std::fs::write(&path, [7; 97]).unwrap();
        store.import(&path, options).await.unwrap();
        std::fs::remove_file(path).unwrap();
    });
    let files = disk.0.lock().unwrap();
    files.iter().map(|(name, file)| (name.clone(), file.0.lock().unwrap().clone())).collect()
});

fuzz_target!(init: {
    // redb asserts what a page of its own says. The job that reads it fails then, and the store with it; anything else that
    // panics is ours.
    let abort = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !info.location().is_some_and(|place| place.file().contains("/redb-")) {
            abort(info);
        }
    }));
}, |damages: Vec<Damage>| {
    let disk = Memory::default();
    for (name, bytes) in &*WHOLE {
        let mut bytes = bytes.clone();
        if name == "index.redb" {
            for damage in &damages {
                let at = damage.at as usize % bytes.len();
                for (old, new) in bytes[at..].iter_mut().zip(&damage.bytes) {
                    *old ^= new;
                }
            }
        }
        disk.0.lock().unwrap().insert(name.clone(), Arc::new(Bytes(Mutex::new(bytes))));
    }
    RUNTIME.block_on(async {
        let Ok(store) = DiskStore::open(Arc::new(disk), Arc::new(TokioRuntime)).await else { return };
        let Ok(tasks) = store.tasks().await else { return };
        for task in tasks.iter().take(4) {
            let _ = store.held(task.key).await;
            for number in 0..5 {
                if let Ok(piece) = store.piece(task.key.piece(number)).await {
                    let _ = piece.content.read(0, 1 << 20).await;
                }
            }
        }
        let _ = store.collect(Keep { bytes: Some(0), age: None }).await;
    });
});
