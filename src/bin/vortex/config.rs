//! `vortex config check`: what is wrong with a dfdaemon.yaml.

use crate::cli::Output;
use crate::exit::{Exit, Failure};
use clap::{Args, Subcommand};
use serde::Serialize;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use vortex_p2p::config::{self, Config, Problem, ProblemKind};

/// Look after a dfdaemon.yaml
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say what is wrong with it: unknown keys with their place and what was probably meant, wrong values, conflicts
    Check {
        /// The file
        file: PathBuf,
    },
}

/// One thing that is wrong, for programs.
#[derive(Serialize)]
struct Found<'a> {
    line: usize,
    column: usize,
    key: &'a str,
    kind: &'static str,
    message: &'a str,
    suggestion: Option<&'a str>,
}

impl<'a> From<&'a Problem> for Found<'a> {
    fn from(problem: &'a Problem) -> Self {
        let kind = match problem.kind {
            ProblemKind::Syntax => "syntax",
            ProblemKind::UnknownKey => "unknown-key",
            ProblemKind::Value => "value",
            ProblemKind::Conflict => "conflict",
        };
        Self {
            line: problem.at.line,
            column: problem.at.column,
            key: &problem.key,
            kind,
            message: &problem.message,
            suggestion: problem.suggestion.as_deref(),
        }
    }
}

pub(crate) fn run(arguments: &Arguments, output: &Output) -> Result<Exit, Failure> {
    let Command::Check { file } = &arguments.command;
    let text = std::fs::read_to_string(file).map_err(|error| Failure::file(file, &error))?;
    let checked = config::check(&text);
    let mut out = std::io::stdout();
    for problem in &checked.problems {
        if output.json {
            writeln!(out, "{}", serde_json::to_string(&Found::from(problem)).unwrap_or_default())?;
        } else {
            writeln!(out, "{}:{problem}", file.display())?;
        }
    }
    for unused in checked.unused {
        tracing::info!("{}:{}: {} has no effect here", file.display(), unused.at, unused.key);
    }
    match checked.problems.len() {
        0 => Ok(Exit::Done),
        count => {
            Err(Failure::new(Exit::Usage, format!("{count} problem{}", if count == 1 { "" } else { "s" })))
        }
    }
}

/// The settings of the file at `path`, or the defaults without one. What is wrong with them is told.
pub(crate) fn load(path: Option<&Path>) -> Result<Config, Failure> {
    let Some(path) = path else { return Ok(Config::default()) };
    let checked = Config::load(path).map_err(|error| {
        Failure::new(Exit::Usage, error.to_string())
            .hint("`vortex config check` names everything that is wrong with it")
    })?;
    for problem in &checked.problems {
        tracing::warn!("{}:{problem}", path.display());
    }
    Ok(checked.config)
}
