//! The outcome of a run: for people, for scripts, for build servers.

use super::{CaseReport, Verdict};
use crate::wire::Escaped;
use serde::Serialize;
use std::fmt::Write as _;

/// How many cases ended how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// Cases that passed.
    pub passed: usize,
    /// Cases that failed and fail the run: unmet requirements, and expected failures that passed.
    pub failed: usize,
    /// Failures that do not: SHOULD without `--strict`.
    pub warnings: usize,
    /// Failures that were expected.
    pub expected: usize,
    /// Cases of which nothing can be said.
    pub skipped: usize,
}

impl Summary {
    /// Counts.
    #[must_use]
    pub fn of(reports: &[CaseReport]) -> Self {
        let mut summary = Self::default();
        for report in reports {
            let place = match report.verdict {
                _ if report.counts => &mut summary.failed,
                Verdict::Pass => &mut summary.passed,
                Verdict::Skip => &mut summary.skipped,
                Verdict::Fail if report.expected_failure.is_some() => &mut summary.expected,
                Verdict::Fail => &mut summary.warnings,
            };
            *place += 1;
        }
        summary
    }

    /// Whether the peer conforms, as far as this run shows.
    #[must_use]
    pub fn conforms(&self) -> bool {
        self.failed == 0
    }
}

impl CaseReport {
    /// One word: `pass`, `FAIL`, `warn`, `known` or `skip`.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self.verdict {
            _ if self.counts => "FAIL",
            Verdict::Pass => "pass",
            Verdict::Skip => "skip",
            Verdict::Fail if self.expected_failure.is_some() => "known",
            Verdict::Fail => "warn",
        }
    }

    /// One JSON object: `id`, `transport`, `verdict` (`pass`, `fail`, `skip`), `requirement` (its sentence), `level`,
    /// `message`, `seconds`, `expected_failure` (the reason, or null) and `counts`.
    #[must_use]
    pub fn to_json(&self) -> String {
        #[derive(Serialize)]
        struct Json<'a> {
            id: &'a str,
            transport: super::Transport,
            verdict: Verdict,
            requirement: &'a str,
            level: &'a str,
            message: &'a str,
            seconds: f64,
            expected_failure: Option<&'a str>,
            counts: bool,
        }
        let json = Json {
            id: self.id,
            transport: self.transport,
            verdict: self.verdict,
            requirement: &self.requirement.text,
            level: self.requirement.level.name(),
            message: &self.message,
            seconds: self.took.as_secs_f64(),
            expected_failure: self.expected_failure.as_deref(),
            counts: self.counts,
        };
        serde_json::to_string(&json).unwrap_or_default()
    }
}

/// A table for people: a line for each case, explanations below those that did not pass, and the sums.
#[must_use]
pub fn table(reports: &[CaseReport]) -> String {
    let width = reports.iter().map(|report| report.id.len()).max().unwrap_or_default();
    let mut text = String::new();
    for report in reports {
        let CaseReport { id, requirement, .. } = report;
        let _ = writeln!(
            text,
            "{:5} {:4} {id:width$}  {}",
            report.word(),
            report.transport.name(),
            requirement.title
        );
        if report.word() != "pass" {
            let _ = writeln!(text, "           {}", Escaped(&report.message));
        }
        if report.verdict == Verdict::Fail {
            let _ = writeln!(text, "           {}: {}", requirement.id, requirement.text);
        }
        if let Some(reason) = &report.expected_failure {
            let _ = writeln!(text, "           known: {reason}");
        }
    }
    let Summary { passed, failed, warnings, expected, skipped } = Summary::of(reports);
    let _ = writeln!(
        text,
        "{} cases: {passed} passed, {failed} failed, {warnings} warnings, {expected} known failures, {skipped} skipped",
        reports.len()
    );
    text
}

/// A JUnit file.
#[must_use]
pub fn junit(reports: &[CaseReport]) -> String {
    let (mut failures, mut skipped) = (0, 0);
    let mut cases = String::new();
    for report in reports {
        let _ = write!(
            cases,
            "  <testcase classname=\"{}.{}\" name=\"{}\" time=\"{:.3}\"",
            report.transport.name(),
            report.requirement.id,
            report.id,
            report.took.as_secs_f64()
        );
        let message = xml(&report.message);
        let body = match report.word() {
            "FAIL" => {
                failures += 1;
                format!("<failure message=\"{message}\">{}</failure>", xml(&report.requirement.text))
            }
            "pass" => String::new(),
            "skip" => {
                skipped += 1;
                format!("<skipped message=\"{message}\"/>")
            }
            word => format!("<system-out>{word}: {message}</system-out>"),
        };
        let _ = writeln!(cases, ">{body}</testcase>");
    }
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"vortex conformance\" tests=\"{}\" \
         failures=\"{failures}\" errors=\"0\" skipped=\"{skipped}\">\n{cases}</testsuite>\n",
        reports.len()
    )
}

/// Text within an attribute or an element.
fn xml(text: &str) -> String {
    let escaped = Escaped(text).to_string();
    escaped.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{Transport, requirement};
    use std::time::Duration;

    fn report(id: &'static str, verdict: Verdict, counts: bool, message: &str) -> CaseReport {
        CaseReport {
            id,
            transport: Transport::Tcp,
            verdict,
            requirement: requirement::of_case(id),
            message: message.to_owned(),
            took: Duration::from_millis(1500),
            expected_failure: None,
            counts,
        }
    }

    fn reports() -> Vec<CaseReport> {
        vec![
            report("VTX-FRM-011/4gib", Verdict::Pass, false, "fine"),
            report("VTX-TCP-006/large", Verdict::Fail, true, "seen: <nothing> & \"\u{1b}[31m\""),
            report("VTX-FRM-006/error", Verdict::Fail, false, "id 7"),
            report("VTX-REQ-006", Verdict::Skip, false, "needs an empty task"),
        ]
    }

    #[test]
    fn a_should_warns_and_a_must_fails() {
        let summary = Summary::of(&reports());
        assert_eq!(summary, Summary { passed: 1, failed: 1, warnings: 1, expected: 0, skipped: 1 });
        assert!(!summary.conforms());
    }

    #[test]
    fn a_table_is_safe_for_a_terminal_and_quotes_the_requirement() {
        let table = table(&reports());
        assert!(!table.contains('\u{1b}'), "{table}");
        assert!(table.contains("VTX-TCP-006: A Server that answers a packet"), "{table}");
    }

    #[test]
    fn junit_is_xml() {
        let xml = junit(&reports());
        assert!(xml.contains("tests=\"4\" failures=\"1\" errors=\"0\" skipped=\"1\""), "{xml}");
        assert!(xml.contains("seen: &lt;nothing&gt; &amp; &quot;\\u{1b}[31m&quot;"), "{xml}");
    }

    #[test]
    fn json_has_the_names_that_scripts_rely_on() {
        let value: serde_json::Value = serde_json::from_str(&reports()[1].to_json()).unwrap();
        assert_eq!(value["id"], "VTX-TCP-006/large");
        assert_eq!(value["verdict"], "fail");
        assert!(value["requirement"].as_str().unwrap().starts_with("A Server that answers"));
        assert_eq!(value["counts"], true);
    }
}
