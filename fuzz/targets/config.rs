//! Any text as a configuration: it is read or refused, and every problem has a place in it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vortex_p2p::config;

fuzz_target!(|text: &str| {
    let checked = config::check(text);
    // YAML breaks lines at each of these.
    let lines = text.matches(['\n', '\r']).count();
    for problem in &checked.problems {
        assert!(!problem.to_string().is_empty());
        assert!((1..=lines + 1).contains(&problem.at.line), "line {} of {}", problem.at.line, lines + 1);
    }
});
