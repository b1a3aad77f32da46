//! The content that is moved.

use super::job::Job;
use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::sync::Arc;
use vortex_p2p::runtime::TokioRuntime;
use vortex_p2p::store::disk::{DiskStore, OsDisk};
use vortex_p2p::store::{NewTask, ParentId, PieceStore as _, Provenance, StoreError, TaskKey};
use vortex_p2p::wire::{Algorithm, Digest, Division, PieceKind, TaskId};

/// The task that the content is.
pub(super) fn key() -> TaskKey {
    TaskKey { kind: PieceKind::Piece, id: TaskId::from_sha256(*b"what vortex bench moves 32 bytes") }
}

/// Writes the content: numbers of a generator, which nothing can compress and everyone can make again.
pub(super) fn write(job: &Job) -> io::Result<()> {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(job.content())?);
    let mut state: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut left = job.length;
    while left > 0 {
        // xorshift64* of Vigna.
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        let bytes = state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes();
        let count = left.min(8);
        file.write_all(bytes.get(..count as usize).unwrap_or_default())?;
        left -= count;
    }
    file.flush()
}

/// Puts the content into a store on the disk, in the pieces of `division`.
pub(super) async fn import(job: &Job, division: Division) -> Result<(), StoreError> {
    use std::os::unix::fs::FileExt as _;
    let failed = |error| StoreError::io("reading the content", error);
    let disk = OsDisk::open(job.store()).map_err(failed)?;
    let store = DiskStore::open(Arc::new(disk), Arc::new(TokioRuntime)).await?;
    store.create(NewTask { key: key(), division, digest: None }).await?;
    let file = File::open(job.content()).map_err(failed)?;
    let pieces = (0..u32::MAX).map_while(|number| Some((number, division.piece(number)?)));
    let mut commits = tokio::task::JoinSet::new();
    for (number, span) in pieces {
        let mut content = vec![0; span.length.get() as usize];
        file.read_exact_at(&mut content, span.offset).map_err(failed)?;
        let digest = Digest::of(Algorithm::Crc32, &content);
        let provenance = Provenance { digest, parent_id: ParentId::default(), cost: 0, created_at: 0 };
        let mut writer = store.writer(key().piece(number)).await?;
        writer.write(content.into()).await?;
        // Those that are committed together share a sync.
        commits.spawn(writer.commit(provenance));
        while commits.len() > 256 {
            if let Some(Ok(done)) = commits.join_next().await {
                done?;
            }
        }
    }
    while let Some(done) = commits.join_next().await {
        done.map_err(|_| StoreError::Unavailable)??;
    }
    Ok(())
}
