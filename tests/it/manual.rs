//! The user guide says what the code does: each table is checked against it.

use crate::committed;

fn page(name: &str) -> String {
    std::fs::read_to_string(committed::path(&format!("book/src/using/{name}.md"))).unwrap()
}

/// The rows of a page's tables, cell by cell, without the marks of code.
fn rows(name: &str) -> Vec<Vec<String>> {
    let page = page(name);
    let rows = page.lines().filter(|line| line.starts_with('|') && !line.starts_with("|--"));
    let cells = |line: &str| {
        line.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`').to_owned()).collect()
    };
    rows.map(cells).collect()
}

#[cfg(feature = "cli")]
#[test]
fn exit_codes_are_those_of_the_command() {
    let help = crate::cli::run(&["--help"]);
    let help = String::from_utf8(help.stdout).unwrap();
    let (_, codes) = help.split_once("Exit codes:\n").unwrap();
    let told: Vec<(&str, &str)> = codes.lines().filter_map(|line| line.trim().split_once("  ")).collect();
    assert_eq!(told.len(), 11);
    let rows = rows("exit-codes");
    let documented: Vec<(&str, &str)> = rows[1..].iter().map(|row| (&row[0][..], &row[2][..])).collect();
    assert_eq!(documented, told);
}

#[cfg(feature = "peer")]
#[test]
fn limits_are_those_of_the_server() {
    use vortex_p2p::server::{Limit, ServerSettings};
    let settings = ServerSettings::default();
    let rows = rows("limits");
    for limit in Limit::ALL {
        let row = rows.iter().find(|row| row[0] == limit.name()).unwrap_or_else(|| panic!("{limit:?}"));
        let value = limit.value(&settings).map_or("none".to_owned(), |value| value.to_string());
        assert_eq!((&row[1], row[4].as_str()), (&value, limit.told()), "{limit:?}");
    }
}

#[cfg(feature = "config")]
#[test]
fn keys_of_the_configuration_are_those_that_are_read() {
    use vortex_p2p::config::{Config, ProblemKind, check};
    let rows = rows("configuration");
    let nested = |key: &str, value: &str| {
        let parts = key.split('.');
        let depth = parts.clone().count();
        format!("{}: {value}{}", parts.collect::<Vec<_>>().join(": {"), "}".repeat(depth - 1))
    };
    for row in &rows[1..] {
        let default = row[1].as_str();
        let known = check(&nested(&row[0], if default == "–" { "true" } else { default }));
        assert!(known.unused.is_empty(), "{} has no effect", row[0]);
        let unknown = known.problems.iter().find(|problem| problem.kind == ProblemKind::UnknownKey);
        assert!(unknown.is_none(), "{unknown:?}");
        if default != "–" {
            assert_eq!(known.problems, [], "{}", row[0]);
            assert_eq!(known.config, Config::default(), "{} is not {default} by default", row[0]);
        }
    }
    // And no key is read that is not there.
    let source = std::fs::read_to_string(committed::path("src/config/dfdaemon.rs")).unwrap();
    let read = ["read(\"", "optional(\""].into_iter().flat_map(|call| source.split(call).skip(1));
    for key in read.map(|rest| rest.split('"').next().unwrap()) {
        let there = rows.iter().any(|row| row[0].ends_with(&format!(".{key}")) || row[2].contains(key));
        assert!(there, "{key} is not in the book");
    }
}

#[cfg(feature = "metrics")]
#[test]
fn metrics_are_those_that_are_shown() {
    use vortex_p2p::metrics::Exposition;
    use vortex_p2p::server::{Limit, ServerSettings, ServerStats};
    use vortex_p2p::wire::PieceKind;
    let stats = ServerStats {
        pieces: PieceKind::ALL.into_iter().map(|kind| (kind, Default::default())).collect(),
        limits: Limit::ALL.into_iter().map(|limit| (limit, 0)).collect(),
        ..ServerStats::default()
    };
    let text = Exposition::default().server(&stats, &ServerSettings::default()).unwrap().text().unwrap();
    assert!(text.matches("# HELP ").count() >= 11, "{text}");
    let page = page("limits");
    let named = text.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split(' ').next());
    for name in named {
        assert!(page.contains(&format!("`{name}")), "{name} is not in the book");
    }
}
