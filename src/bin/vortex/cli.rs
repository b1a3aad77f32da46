//! What the command line takes. Help, completions and the man page come from these definitions.

use crate::{bench, config, conformance, decode, demo, exit::Exit, get, import, serve};
use clap::{Args, Parser, Subcommand};

/// Moves large files between peers in pieces, over QUIC and TCP.
#[derive(Debug, Parser)]
#[command(name = "vortex", version, after_long_help = exit_codes(), propagate_version = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) output: Output,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How results and logs are written. Results go to stdout, everything else to stderr.
#[derive(Debug, Args)]
pub(crate) struct Output {
    /// Write results as JSON, one object a line
    #[arg(long, global = true, env = "VORTEX_JSON")]
    pub(crate) json: bool,
    /// Log more: -v what happens, -vv how, -vvv everything (RUST_LOG overrules it)
    #[arg(short, long, global = true, action = clap::ArgAction::Count, env = "VORTEX_VERBOSE")]
    pub(crate) verbose: u8,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Demo(demo::Arguments),
    Import(import::Arguments),
    Serve(serve::Arguments),
    Get(get::Arguments),
    Config(config::Arguments),
    Bench(bench::Arguments),
    /// One of the two processes of a transfer that `bench` measures
    #[command(hide = true)]
    BenchWorker {
        /// What to do, as JSON
        job: String,
    },
    Decode(decode::Arguments),
    Conformance(Box<conformance::Arguments>),
    /// Print a completion script for a shell
    #[command(hide = true)]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    #[command(hide = true)]
    Man,
}

/// Whether to color what goes to a stream: `NO_COLOR` forbids it, and so does anything but a terminal.
pub(crate) fn colors(terminal: bool) -> bool {
    terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn exit_codes() -> String {
    let codes = Exit::ALL.map(|exit| format!("  {:>3}  {}", exit as u8, exit.meaning()));
    format!("Exit codes:\n{}", codes.join("\n"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn definitions_are_consistent() {
        use clap::CommandFactory as _;
        super::Cli::command().debug_assert();
    }

    /// What the book and the other pages tell people to type is understood.
    #[test]
    fn commands_in_the_documentation_are_understood() {
        use clap::Parser as _;
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut pages = vec![root.join("README.md"), root.join("spec/README.md")];
        for directory in ["spec", "implementing", "using", "architecture"] {
            let entries = std::fs::read_dir(root.join("book/src").join(directory)).unwrap();
            pages.extend(entries.map(|entry| entry.unwrap().path()));
        }
        let mut found = 0;
        for page in pages.iter().filter(|page| page.extension().is_some_and(|it| it == "md")) {
            let text = std::fs::read_to_string(page).unwrap().replace("\\\n", " ");
            for line in text.lines() {
                let Some(command) = line.strip_prefix("cargo ").unwrap_or(line).strip_prefix("vortex ")
                else {
                    continue;
                };
                found += 1;
                let words = words(command);
                let parsed = super::Cli::try_parse_from(std::iter::once("vortex").chain(words));
                assert!(parsed.is_ok(), "{}: {line}: {parsed:?}", page.display());
            }
        }
        assert!(found >= 10, "{found}");
    }

    /// Words as a shell takes them, up to what explains the command: after a `#`, or after a gap.
    fn words(command: &str) -> Vec<&str> {
        let mut words = Vec::new();
        let mut rest = command;
        while !rest.is_empty() && !rest.starts_with('#') {
            let quoted = rest.strip_prefix('\'');
            let (word, after) = quoted
                .unwrap_or(rest)
                .split_once(if quoted.is_some() { '\'' } else { ' ' })
                .unwrap_or((quoted.unwrap_or(rest), ""));
            words.push(word);
            let trimmed = after.trim_start();
            // A line that goes on has one space before its end and its indentation after it.
            if quoted.is_none() && after.len() - trimmed.len() > 8 {
                break;
            }
            rest = trimmed;
        }
        words
    }
}
