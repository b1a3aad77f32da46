//! Files that are there whole or not at all, whenever the process dies.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Who may read a file.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Readers {
    Everyone,
    Owner,
}

/// Writes a file: under its name is what was there before, or all of `content`, durably.
pub(crate) fn write(path: &Path, content: &[u8], readers: Readers) -> io::Result<()> {
    let path = std::path::absolute(path)?;
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().ok_or(io::ErrorKind::InvalidFilename)?);
    name.push(".unfinished");
    // One that a killed process left is written over.
    let unfinished = path.with_file_name(name);
    let mode = match readers {
        Readers::Everyone => 0o666,
        Readers::Owner => 0o600,
    };
    replaceable(&path)?;
    // Nobody who may write here is to choose what is written over.
    let here = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    let mut options = OpenOptions::new();
    let options = options.write(true).create(true).truncate(true).mode(mode).custom_flags(here);
    let mut file = options.open(&unfinished)?;
    file.write_all(content)?;
    file.sync_all()?;
    rename(&unfinished, &path)
}

/// Whether a new file may take the name: nothing has it, or a file has. A device, a pipe or a link would not be written to, but
/// be gone: `/dev/null` as well as `/dev/stdout`.
pub(crate) fn replaceable(path: &Path) -> io::Result<()> {
    let kind = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(found) if found.is_file() => return Ok(()),
        Ok(found) if found.is_dir() => "a directory",
        Ok(found) if found.is_symlink() => "a symbolic link",
        Ok(_) => "a device, a pipe or a socket",
    };
    Err(io::Error::other(format!("is {kind}: expected a file, or nothing")))
}

/// Gives a durable file its name, durably.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    let to = std::path::absolute(to)?;
    std::fs::rename(from, &to)?;
    to.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}
