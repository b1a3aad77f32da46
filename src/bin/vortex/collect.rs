//! Throws tasks away, by the settings of a daemon: those that nobody has used for long, and the oldest while the disk is
//! fuller than it may be.

use std::path::{Path, PathBuf};
use vortex_p2p::config::Gc;
use vortex_p2p::runtime::SharedRuntime;
use vortex_p2p::store::{Keep, SharedStore, StoreError};

/// How much there is of a disk, in bytes.
#[derive(Debug, Clone, Copy)]
struct Space {
    total: u64,
    free: u64,
}

/// Looks after `store`, which is in `dir`, as often as `gc` says.
pub(crate) async fn forever(runtime: SharedRuntime, store: SharedStore, dir: PathBuf, gc: Gc) {
    loop {
        runtime.sleep(gc.interval).await;
        if let Err(error) = once(&runtime, &store, &dir, &gc).await {
            tracing::warn!(%error, "old tasks could not be removed");
        }
    }
}

async fn once(runtime: &SharedRuntime, store: &SharedStore, dir: &Path, gc: &Gc) -> Result<(), StoreError> {
    let stored =
        store.tasks().await?.iter().fold(0u64, |sum, task| sum.saturating_add(task.division.length()));
    let dir = dir.to_owned();
    let space = runtime.blocking(move || space(&dir)).await?;
    let collected = store.collect(keep(gc, space, stored)).await?;
    if !collected.tasks.is_empty() {
        tracing::info!(tasks = collected.tasks.len(), bytes = collected.bytes, "old tasks were removed");
    }
    Ok(())
}

/// The disk that `dir` is on; `None` where the system does not tell.
fn space(dir: &Path) -> Option<Space> {
    let disk = rustix::fs::statvfs(dir).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
    Some(Space { total: bytes(disk.f_blocks), free: bytes(disk.f_bavail) })
}

/// What of `stored` bytes may stay.
fn keep(gc: &Gc, space: Option<Space>, stored: u64) -> Keep {
    let bytes = space.and_then(|Space { total, free }| {
        let used = total.saturating_sub(free);
        let too_many = used.saturating_sub(gc.disk_low.of(total));
        (used > gc.disk_high.of(total)).then(|| stored.saturating_sub(too_many))
    });
    Keep { bytes, age: Some(gc.task_ttl) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_go_when_the_disk_is_too_full_until_it_is_not() {
        let gc = Gc::default();
        let kept =
            |used: u64, stored| keep(&gc, Some(Space { total: 1000, free: 1000 - used }), stored).bytes;
        assert_eq!(kept(800, 500), None, "80 % are allowed");
        assert_eq!(kept(801, 500), Some(500 - 201), "down to 60 %");
        assert_eq!(kept(1000, 100), Some(0), "what others have stored does not go away by it");
        assert_eq!(keep(&gc, None, 100), Keep { bytes: None, age: Some(gc.task_ttl) });
    }
}
