//! Every direct dependency is argued for in the book, and nothing else is.

use crate::committed;
use std::collections::BTreeSet;

/// The keys of a table of Cargo.toml.
fn keys<'a>(manifest: &'a str, table: &str) -> BTreeSet<&'a str> {
    let lines = manifest.lines().skip_while(|line| *line != format!("[{table}]")).skip(1);
    let lines = lines.take_while(|line| !line.starts_with('['));
    lines
        .filter_map(|line| line.split_once(" = "))
        .map(|(key, _)| key)
        .filter(|key| !key.starts_with('#'))
        .collect()
}

/// The crates that have a row in a table of the page, from `heading` on to the next one.
fn rows<'a>(page: &'a str, heading: &str) -> BTreeSet<&'a str> {
    let lines = page.lines().skip_while(|line| *line != heading).skip(1);
    let lines = lines.take_while(|line| !line.starts_with("## "));
    lines.filter_map(|line| line.strip_prefix("| `")?.split_once('`')).map(|(name, _)| name).collect()
}

#[test]
fn each_dependency_is_argued_for() {
    let read = |path: &str| std::fs::read_to_string(committed::path(path)).unwrap();
    let (manifest, page) = (read("Cargo.toml"), read("book/src/architecture/dependencies.md"));
    let library = keys(&manifest, "dependencies");
    assert_eq!(rows(&page, "## Of the library"), library);
    let tests: BTreeSet<_> = &keys(&manifest, "dev-dependencies") - &library;
    assert_eq!(rows(&page, "## Of the tests"), tests);
}
