//! A run that failed once, as a file: what to run again, which faults are enough for it, and how it has to end now.

use crate::mask::Mask;
use crate::scenario::{self, Outcome, Scenario};
use crate::trace::Keep;
use crate::world::{Finished, World, run_masked};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::Path;

/// What a file of `sim/regressions` says, as JSON; the file's name says what went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Regression {
    /// Where it was.
    pub world: World,
    /// In which scenario.
    pub scenario: String,
    /// The seed.
    pub seed: u64,
    /// The planted bug that was alive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<String>,
    /// The faults that act; all of the seed's where nothing is said.
    #[serde(default, skip_serializing_if = "Mask::is_empty")]
    pub faults: Mask,
    /// What was violated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub violation: Option<String>,
    /// What put it right. From then on the run has to pass, and before it has to end with the same violation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mended: Option<String>,
}

impl Regression {
    /// Reads a file.
    ///
    /// # Errors
    /// Those of the file, and [`io::ErrorKind::InvalidData`] where it does not say what to run and how that has to end.
    pub fn read(path: &Path) -> io::Result<Self> {
        let wrong =
            |why: String| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {why}", path.display()));
        let text = fs::read_to_string(path)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
        let regression: Self = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        if regression.violation.is_none() && regression.mended.is_none() {
            return Err(wrong("expected violation, mended or both".to_owned()));
        }
        regression.find().map_err(|error| wrong(error.to_string()))?;
        Ok(regression)
    }

    /// Writes a file, and the folder that it is in.
    ///
    /// # Errors
    /// Those of the file.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(path, serde_json::to_string_pretty(self)? + "\n")
    }

    fn find(&self) -> io::Result<&'static dyn Scenario> {
        scenario::find(&self.scenario)
            .ok_or_else(|| io::Error::other(format!("expected a scenario, got {}", self.scenario)))
    }

    /// Runs it again.
    ///
    /// # Errors
    /// Where there is no such scenario any more.
    pub fn run(&self, keep: Keep) -> io::Result<Finished> {
        Ok(run_masked(self.world, self.find()?, self.seed, keep, self.faults.clone()))
    }

    /// Whether a run of it ended as it has to.
    pub fn is_right(&self, outcome: &Outcome) -> bool {
        match (outcome, &self.violation) {
            (Ok(()), _) => self.mended.is_some(),
            (Err(violation), Some(known)) => {
                self.mended.is_none() && same_invariant(&violation.to_string(), known)
            }
            (Err(_), None) => false,
        }
    }
}

/// Whether two violations are of one invariant: they differ at most in what they count and measure.
pub fn same_invariant(one: &str, other: &str) -> bool {
    let words = |text: &str| -> String {
        // Where a panic was, the line is part of what it is.
        let measures = |word: &&str| !word.contains(".rs:") && word.bytes().any(|byte| byte.is_ascii_digit());
        text.split(' ').map(|word| if measures(&word) { "#" } else { word }).collect::<Vec<_>>().join(" ")
    };
    words(one) == words(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invariant_is_the_same_whatever_it_counts() {
        assert!(same_invariant("piece 3 was answered twice", "piece 17 was answered twice"));
        assert!(!same_invariant("piece 3 was answered twice", "piece 3 has other bytes than the file"));
        assert!(!same_invariant("panic on a at src/a.rs:3:5: x", "panic on a at src/a.rs:4:5: x"));
    }

    #[test]
    fn a_file_that_does_not_say_how_it_ends_is_refused() {
        let folder = std::env::temp_dir().join(format!("vortex-regression-{}", std::process::id()));
        let path = folder.join("one.json");
        let mut regression = Regression {
            world: World::Turmoil,
            scenario: "echo".to_owned(),
            seed: 1,
            canary: None,
            faults: Mask::default(),
            violation: None,
            mended: None,
        };
        regression.write(&path).unwrap();
        assert!(
            Regression::read(&path).unwrap_err().to_string().contains("expected violation, mended or both")
        );
        regression.mended = Some("by a fix".to_owned());
        regression.write(&path).unwrap();
        assert_eq!(Regression::read(&path).unwrap(), regression);
        regression.scenario = "nowhere".to_owned();
        regression.write(&path).unwrap();
        assert!(Regression::read(&path).unwrap_err().to_string().contains("expected a scenario"));
        fs::remove_dir_all(folder).unwrap();
    }
}
