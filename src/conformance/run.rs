//! Runs cases side by side, each by its deadline, and judges the whole.

use super::case::{Shown, Stop};
use super::requirement::{self, Level};
use super::{CaseReport, ExpectedFailures, Transport, Verdict};
use crate::runtime::{BoxFuture, SharedRuntime};
use futures_util::stream::{self, StreamExt};
use std::collections::BTreeSet;
use std::time::Duration;

/// Which cases are run, and what fails a run.
#[derive(Debug, Clone)]
pub struct RunSettings {
    /// Only cases whose id begins with one of these; all where there is none.
    pub select: Vec<String>,
    /// Whether a SHOULD that is not met fails the run.
    pub strict: bool,
    /// Which cases are known to fail.
    pub expected: ExpectedFailures,
    /// Cases at a time.
    pub concurrency: usize,
}

impl Default for RunSettings {
    /// Every case, 48 at a time: far below the connections that a server grants to one address.
    fn default() -> Self {
        Self { select: Vec::new(), strict: false, expected: ExpectedFailures::default(), concurrency: 48 }
    }
}

impl RunSettings {
    /// Whether the case is among those that are run.
    #[must_use]
    pub fn selects(&self, id: &str) -> bool {
        self.select.is_empty() || self.select.iter().any(|prefix| id.starts_with(prefix.as_str()))
    }
}

/// A case that is to be run.
pub(super) struct Planned {
    pub(super) id: &'static str,
    pub(super) transport: Transport,
    pub(super) about: &'static str,
    /// Time after which it has failed, whatever it waits for.
    pub(super) deadline: Duration,
    /// It waits for a deadline of the peer: begun first, so that the rest is done meanwhile.
    pub(super) slow: bool,
    pub(super) run: BoxFuture<'static, Shown>,
}

/// Runs the cases and reports them in the order of the plan.
pub(super) async fn run(
    runtime: &SharedRuntime,
    settings: &RunSettings,
    plan: Vec<Planned>,
) -> Vec<CaseReport> {
    let mut order: Vec<(usize, Planned)> =
        plan.into_iter().filter(|case| settings.selects(case.id)).enumerate().collect();
    order.sort_by_key(|(_, case)| !case.slow);
    let running = order.into_iter().map(|(place, case)| async move {
        let begun = runtime.now();
        let Planned { id, transport, about, deadline, run, .. } = case;
        let shown = runtime.timeout(deadline, run).await.unwrap_or_else(|_| {
            let seen = format!("nothing of the kind within {deadline:?}");
            Err(Stop::Fail { requirement: None, seen })
        });
        (place, Ended { id, transport, about, shown, took: runtime.now() - begun })
    });
    let mut ended: Vec<(usize, Ended)> =
        stream::iter(running).buffer_unordered(settings.concurrency.max(1)).collect().await;
    ended.sort_by_key(|(place, _)| *place);
    judge(settings, ended.into_iter().map(|(_, ended)| ended).collect())
}

struct Ended {
    id: &'static str,
    transport: Transport,
    about: &'static str,
    shown: Shown,
    took: Duration,
}

fn requirement_of(id: &'static str) -> &'static str {
    id.split('/').next().unwrap_or_default()
}

/// A case that met a broken requirement of another case leaves the verdict to that one. Where no case of that requirement
/// failed, it is the one to tell.
fn judge(settings: &RunSettings, ended: Vec<Ended>) -> Vec<CaseReport> {
    let broken: BTreeSet<(&str, Transport)> = ended
        .iter()
        .filter_map(|case| match &case.shown {
            Err(Stop::Fail { requirement, .. }) => {
                let own = requirement_of(case.id);
                (requirement.is_none_or(|named| named == own)).then_some((own, case.transport))
            }
            _ => None,
        })
        .collect();
    let report = |case: Ended| {
        let Ended { id, transport, about, shown, took } = case;
        let requirement = requirement::of_case(id);
        let (verdict, message) = match shown {
            Ok(()) => (Verdict::Pass, about.to_owned()),
            Err(Stop::Skip(reason)) => (Verdict::Skip, reason),
            Err(Stop::Fail { requirement, seen }) => match requirement {
                Some(other) if other != requirement_of(id) && broken.contains(&(other, transport)) => {
                    (Verdict::Skip, format!("not shown, because {other} is broken: {seen}"))
                }
                Some(other) if other != requirement_of(id) => {
                    (Verdict::Fail, format!("expected: {about}; but {other} is broken: {seen}"))
                }
                _ => (Verdict::Fail, format!("expected: {about}; seen: {seen}")),
            },
        };
        let binding = settings.strict || requirement.level.is_binding();
        let expected_failure = settings.expected.reason(id, transport).map(str::to_owned);
        let (counts, message) = match (verdict, &expected_failure) {
            (Verdict::Fail, Some(_)) => (false, message),
            (Verdict::Fail, None) => (binding, message),
            (Verdict::Pass, Some(reason)) => (true, format!("passed, but was expected to fail: {reason}")),
            (Verdict::Pass | Verdict::Skip, _) => (false, message),
        };
        CaseReport { id, transport, verdict, requirement, message, took, expected_failure, counts }
    };
    ended.into_iter().map(report).collect()
}

impl Level {
    /// How the level is written.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Must => "MUST",
            Self::MustNot => "MUST NOT",
            Self::Should => "SHOULD",
            Self::ShouldNot => "SHOULD NOT",
            Self::May => "MAY",
        }
    }
}
