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

/// Markdown with its paragraphs broken at 140 columns. Headings, tables and code stay as they are.
pub(crate) fn wrap(markdown: &str) -> String {
    let mut wrapped = String::new();
    let mut code = false;
    for line in markdown.lines() {
        code ^= line.starts_with("```");
        let mut column = 0;
        for word in line.split_inclusive(' ') {
            let prose = !code && !line.starts_with(['#', '|', '`']);
            if prose && column > 0 && column + word.trim_end().chars().count() > 140 {
                wrapped.truncate(wrapped.trim_end().len());
                wrapped.push('\n');
                column = 0;
            }
            wrapped.push_str(word);
            column += word.chars().count();
        }
        wrapped.push('\n');
    }
    wrapped
}
