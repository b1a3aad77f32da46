//! Pieces on a disk, safe against power cuts.

mod device;
mod os;

pub use device::{Disk, DiskFile, DiskLock, OpenMode};
pub use os::OsDisk;
