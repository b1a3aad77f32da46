//! The book holds together: every page is in the summary, and every link and every include leads somewhere. mdBook itself
//! only warns about the latter and does not look at the former.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use crate::committed;

/// The pages of the book by their path from `book/src`, and their text.
fn pages() -> BTreeMap<PathBuf, String> {
    let mut pages = BTreeMap::new();
    let root = committed::path("book/src");
    let mut directories = vec![root.clone()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                let text = std::fs::read_to_string(&path).unwrap();
                pages.insert(path.strip_prefix(&root).unwrap().to_owned(), text);
            }
        }
    }
    pages
}

/// `target` as seen from the page `from`, without `..`.
fn resolve(from: &Path, target: &str) -> PathBuf {
    let mut resolved: Vec<Component<'_>> = from.parent().unwrap().components().collect();
    for component in Path::new(target).components() {
        match component {
            Component::ParentDir if matches!(resolved.last(), Some(Component::Normal(_))) => {
                resolved.pop();
            }

            Component::CurDir => {}
            other => resolved.push(other),
        }
    }
    resolved.into_iter().collect()
}

/// The lines of a page outside of code blocks.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut code = false;
    text.lines().enumerate().filter(move |(_, line)| {
        let fence = line.trim_start().starts_with("```");
        code ^= fence;
        !code && !fence
    })
}

/// The anchors of a page: an explicit `{#id}`, or what mdBook makes of a heading.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for (_, line) in prose(text) {
        let heading = line.trim_start_matches('#');
        if heading.len() == line.len() || !heading.starts_with(' ') {
            continue;
        }
        let anchor = match heading.split_once("{#") {
            Some((_, id)) => id.trim_end_matches('}').to_owned(),
            None => heading.trim().chars().filter_map(slug).collect(),
        };
        anchors.insert(anchor);
    }
    anchors
}

fn slug(character: char) -> Option<char> {
    match character {
        ' ' => Some('-'),
        '-' | '_' => Some(character),
        _ => character.is_alphanumeric().then(|| character.to_ascii_lowercase()),
    }
}

#[test]
fn every_page_is_in_the_summary() {
    let pages = pages();
    let summary = &pages[Path::new("SUMMARY.md")];
    for page in pages.keys().filter(|page| *page != Path::new("SUMMARY.md")) {
        assert!(
            summary.contains(&format!("({})", page.display())),
            "{} is not in the summary",
            page.display()
        );
    }
}

#[test]
fn every_link_of_the_book_leads_somewhere() {
    let pages = pages();
    let mut wrong = vec![];
    let mut links = 0;
    for (page, text) in &pages {
        for (number, line) in prose(text) {
            for (at, _) in line.match_indices("](") {
                let target = line[at + 2..].split(')').next().unwrap();
                if target.contains("://") || target.starts_with("mailto:") {
                    continue;
                }
                links += 1;
                let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
                let goal = if file.is_empty() { page.clone() } else { resolve(page, file) };
                let found = match pages.get(&goal) {
                    Some(text) => anchor.is_empty() || anchors(text).contains(anchor),
                    None => anchor.is_empty() && committed::path("book/src").join(&goal).is_file(),
                };
                if !found {
                    wrong.push(format!("{}:{}: {target}", page.display(), number + 1));
                }
            }
        }
    }
    assert!(links > 100, "only {links} links were found");
    assert!(wrong.is_empty(), "links that lead nowhere: {wrong:#?}");
}

#[test]
fn every_include_of_the_book_finds_its_lines() {
    let mut wrong = vec![];
    for (page, text) in &pages() {
        for (at, _) in text.match_indices("{{#include ") {
            let target = text[at + 11..].split("}}").next().unwrap();
            let (file, part) = target.split_once(':').unwrap_or((target, ""));
            let path = committed::path("book/src").join(page.parent().unwrap()).join(file);
            let found = std::fs::read_to_string(path).is_ok_and(|source| {
                part.is_empty()
                    || part.starts_with(|first: char| first.is_ascii_digit())
                    || ["ANCHOR: ", "ANCHOR_END: "].iter().all(|mark| {
                        source.lines().any(|line| line.trim_end().ends_with(&format!("{mark}{part}")))
                    })
            });
            if !found {
                wrong.push(format!("{}: {target}", page.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "includes that find nothing: {wrong:#?}");
}

/// Each diagram shows what its source says: its arrows, and every line of its labels. (Drawing it again needs Graphviz.)
#[test]
fn every_diagram_is_that_of_its_source() {
    let mut wrong = vec![];
    let mut diagrams = 0;
    for entry in std::fs::read_dir(committed::path("book/diagrams")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "dot") {
            continue;
        }
        diagrams += 1;
        let source = std::fs::read_to_string(&path).unwrap();
        let drawn = std::fs::read_to_string(path.with_extension("svg")).unwrap();
        let (mut arrows, mut labels) = (vec![], vec![]);
        for line in source.lines().filter(|line| line.starts_with("  ")) {
            if let Some((from, to)) = line.split_once(" -> ") {
                let to = to.split([' ', ';']).next().unwrap();
                arrows.push(format!("<title>{}&#45;&gt;{to}</title>", from.trim()));
            }
            let label = line.split_once("[label=\"").and_then(|(_, rest)| rest.split('"').next());
            let lines = label.into_iter().flat_map(|label| label.split("\\n"));
            labels.extend(lines.map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()));
        }
        let mut texts: Vec<String> = drawn
            .split("<text ")
            .skip(1)
            .map(|text| text.split(['>', '<']).nth(1).unwrap().replace("&#160;", " ").trim().to_owned())
            .collect();
        texts.sort();
        labels.sort();
        if texts != labels
            || drawn.matches("&#45;&gt;").count() != arrows.len()
            || !arrows.iter().all(|arrow| drawn.contains(arrow))
        {
            wrong.push(format!("{}: {labels:?} {texts:?} {arrows:?}", path.display()));
        }
    }
    assert!(diagrams >= 4, "only {diagrams} diagrams were found");
    assert!(wrong.is_empty(), "diagrams that their sources do not give: {wrong:#?}");
}
