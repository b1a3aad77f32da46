//! Which code implements a requirement and which test proves it: read from citations, shown in the book, and never
//! allowed to become less.
//!
//! A citation is a comment line of its own, `//= VTX-…` in code and `//= VTX-… test` in a test; Python and shell write
//! `#=`, Lua and SQL `--=`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::committed;
use crate::spec::requirement::{self, CHAPTERS, Requirement, ids_in};

/// Where citations are looked for.
const ROOTS: [&str; 8] =
    ["src", "sim", "tests", "spec", "examples", "benches", "fuzz", "book/src/implementing"];

const COVERAGE: &str = "book/src/implementing/coverage.md";

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum Role {
    Implementation,
    Test,
}

#[derive(Debug, PartialEq, Eq)]
struct Citation<'a> {
    id: &'a str,
    role: Role,
}

/// Reads a line: nothing, a citation, or what looks like one and is not well-formed.
fn citation(line: &str) -> Result<Option<Citation<'_>>, ()> {
    let line = line.trim();
    let Some(body) = ["//=", "#=", "--="].iter().find_map(|mark| line.strip_prefix(mark)) else {
        return Ok(None);
    };
    if !body.contains("VTX-") {
        return Ok(None);
    }
    let body = body.strip_prefix(' ').ok_or(())?;
    let (id, role) = match body.strip_suffix(" test") {
        Some(id) => (id, Role::Test),
        None => (body, Role::Implementation),
    };
    if ids_in(id) == [id] { Ok(Some(Citation { id, role })) } else { Err(()) }
}

#[derive(Default)]
struct Traces {
    /// By id, the files that cite it.
    implemented: BTreeMap<String, BTreeSet<String>>,
    tested: BTreeMap<String, BTreeSet<String>>,
    /// The client in another language, which shares no code with the rest.
    independent: BTreeMap<String, BTreeSet<String>>,
}

/// All citations of the repository. Fails at one that cannot be read or that cites nothing.
fn traces() -> Traces {
    let known: BTreeSet<String> = requirement::all().into_iter().map(|requirement| requirement.id).collect();
    let mut traces = Traces::default();
    let mut wrong = vec![];
    let mut files = vec![];
    for root in ROOTS {
        collect(&committed::path(root), &mut files);
    }
    files.sort();
    for file in files {
        let Ok(text) = std::fs::read_to_string(committed::path(&file)) else { continue };
        for (number, line) in text.lines().enumerate() {
            match citation(line) {
                Ok(None) => {}
                Ok(Some(Citation { id, role })) if known.contains(id) => {
                    let place = match role {
                        // Tests of that client prove nothing about this implementation.
                        _ if file.starts_with("spec/examples/") && role == Role::Test => continue,
                        _ if file.starts_with("spec/examples/") => &mut traces.independent,
                        Role::Test => &mut traces.tested,
                        Role::Implementation if file.starts_with("src/") => &mut traces.implemented,
                        // A plain citation in a test is most likely one that lacks its ` test`.
                        Role::Implementation => {
                            wrong.push(format!("{file}:{}: cites {id} as code, outside of src/", number + 1));
                            continue;
                        }
                    };
                    place.entry(id.to_owned()).or_default().insert(file.clone());
                }
                Ok(Some(Citation { id, .. })) => {
                    wrong.push(format!("{file}:{}: cites {id}, which does not exist", number + 1));
                }
                Err(()) => wrong.push(format!("{file}:{}: not a citation: {}", number + 1, line.trim())),
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    traces
}

/// The files below a directory, as paths from the root of the repository. Hidden ones and build output are left out.
fn collect(directory: &Path, files: &mut Vec<String>) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy();
        if name.starts_with('.') || ["target", "node_modules", "__pycache__", "corpus"].contains(&&*name) {
            continue;
        }
        if path.is_dir() {
            collect(&path, files);
        } else if ["rs", "py", "lua", "sh", "md", "ksy"]
            .iter()
            .any(|ext| path.extension().is_some_and(|it| it == *ext))
            || path.extension().is_none()
        {
            let relative = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap();
            files.push(relative.to_string_lossy().replace('\\', "/"));
        }
    }
}

fn count<'a>(
    of: impl Iterator<Item = &'a Requirement>,
    traced: &BTreeMap<String, BTreeSet<String>>,
) -> usize {
    of.filter(|requirement| traced.contains_key(&requirement.id)).count()
}

#[test]
fn the_coverage_table_of_the_book_is_up_to_date() {
    let traces = traces();
    let requirements = requirement::all();
    let mut page = String::from(
        "# Coverage\n\n\
         Where the reference implementation meets each requirement and which tests prove it. Generated from citations in the code \
         (`//= VTX-FRM-011`, in tests `//= VTX-FRM-011 test`); a test of the repository fails when this page is out of date, and when a \
         requirement loses what it had. *Independent* is the [Python client](weekend.md), which was written from the text alone and only \
         cites what a client does.\n\n\
         | Area | Chapter | Requirements | Implemented | Tested | Independent |\n|---|---|--:|--:|--:|--:|\n",
    );
    let area =
        |code: &'static str| requirements.iter().filter(move |requirement| requirement.id[4..7] == *code);
    let row = |name: &str, chapter: &str, total: usize, counts: [usize; 3]| {
        format!("| {name} | {chapter} | {total} | {} | {} | {} |\n", counts[0], counts[1], counts[2])
    };
    let all = [&traces.implemented, &traces.tested, &traces.independent];
    for (code, chapter) in CHAPTERS {
        let link = format!("[{}](../spec/{chapter})", chapter.trim_end_matches(".md"));
        page.push_str(&row(code, &link, area(code).count(), all.map(|traced| count(area(code), traced))));
    }
    page.push_str(&row("all", "", requirements.len(), all.map(|traced| count(requirements.iter(), traced))));
    for (code, chapter) in CHAPTERS {
        page.push_str(&format!(
            "\n## {code}\n\n| Requirement | Level | Implemented in | Tested in |\n|---|---|---|---|\n"
        ));
        for Requirement { id, anchor, title, level, .. } in area(code) {
            let files = |traced: &BTreeMap<String, BTreeSet<String>>| {
                let files = traced.get(id).into_iter().flatten().map(|file| format!("`{file}`"));
                files.collect::<Vec<_>>().join(", ")
            };
            page.push_str(&format!(
                "| [{id}](../spec/{chapter}#{anchor}) {title} | {level} | {} | {} |\n",
                files(&traces.implemented),
                files(&traces.tested),
            ));
        }
    }
    committed::check(COVERAGE, &committed::wrap(&page));
}

/// What each requirement lacks, of those that lack anything.
fn lacking(traces: &Traces) -> BTreeMap<String, Vec<&'static str>> {
    let mut lacking = BTreeMap::new();
    for Requirement { id, .. } in requirement::all() {
        let lacks = [("implementation", &traces.implemented), ("test", &traces.tested)];
        let lacks: Vec<_> =
            lacks.into_iter().filter(|(_, traced)| !traced.contains_key(&id)).map(|(name, _)| name).collect();
        if !lacks.is_empty() {
            lacking.insert(id, lacks);
        }
    }
    lacking
}

#[test]
fn each_requirement_has_code_and_a_test() {
    let lacking = lacking(&traces());
    assert!(lacking.is_empty(), "no citation (any more) of kind: {lacking:#?}");
}

#[test]
fn citations_are_read() {
    let code = |id| Ok(Some(Citation { id, role: Role::Implementation }));
    let test = |id| Ok(Some(Citation { id, role: Role::Test }));
    assert_eq!(citation(concat!("    //", "= VTX-FRM-011")), code("VTX-FRM-011"));
    assert_eq!(citation(concat!("//", "= VTX-FRM-011 test")), test("VTX-FRM-011"));
    assert_eq!(citation(concat!("#", "= VTX-FRM-011 test")), test("VTX-FRM-011"));
    assert_eq!(citation(concat!("--", "= VTX-FRM-011")), code("VTX-FRM-011"));
    assert_eq!(citation("// VTX-FRM-011"), Ok(None));
    assert_eq!(citation("//= something else"), Ok(None));
    for bad in [
        "= VTX-FRM-11",
        "=VTX-FRM-011",
        "= VTX-FRM-011, VTX-FRM-012",
        "= VTX-FRM-011 tests",
        "= VTX-FRM-011 ",
    ] {
        // The last one is fine: lines are trimmed.
        assert_eq!(citation(&format!("//{bad}")).is_err(), !bad.ends_with(' '), "{bad}");
    }
}
