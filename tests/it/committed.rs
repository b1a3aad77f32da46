//! Generated files that are committed: a test compares them, and writes them when it is asked to.

use std::path::{Path, PathBuf};

/// A path of the repository.
pub(crate) fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The text of a file of the repository.
pub(crate) fn read(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Whether this run is to write generated files instead of comparing them.
pub(crate) fn regenerating() -> bool {
    std::env::var_os("VORTEX_REGENERATE").is_some_and(|value| !value.is_empty() && value != "0")
}

/// Fails unless the committed file `name` holds exactly `expected`. With `VORTEX_REGENERATE=1` in the
/// environment it writes the file instead.
pub(crate) fn check(name: &str, expected: &str) {
    if regenerating() {
        std::fs::write(path(name), expected).unwrap_or_else(|error| panic!("{name}: {error}"));
        return;
    }
    let committed = std::fs::read_to_string(path(name)).unwrap_or_default();
    let line = committed.lines().zip(expected.lines()).position(|(old, new)| old != new);
    let line = line.unwrap_or_else(|| committed.lines().count().min(expected.lines().count()));
    assert!(
        committed == expected,
        "{name} is not what its sources say, from line {}:\n  committed: {}\n  generated: {}\n\
         To write it again: VORTEX_REGENERATE=1 cargo test --test it",
        line + 1,
        committed.lines().nth(line).unwrap_or("(end)"),
        expected.lines().nth(line).unwrap_or("(end)"),
    );
}
