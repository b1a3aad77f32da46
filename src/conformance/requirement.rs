//! The index of requirements, as `spec/requirements.json` holds it.

use serde::{Deserialize, Serialize};
use std::sync::LazyLock;

/// The key word of a requirement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Level {
    /// MUST.
    #[serde(rename = "MUST")]
    Must,
    /// MUST NOT.
    #[serde(rename = "MUST NOT")]
    MustNot,
    /// SHOULD.
    #[serde(rename = "SHOULD")]
    Should,
    /// SHOULD NOT.
    #[serde(rename = "SHOULD NOT")]
    ShouldNot,
    /// MAY.
    #[serde(rename = "MAY")]
    May,
}

impl Level {
    /// Whether an implementation without it does not conform.
    #[must_use]
    pub const fn is_binding(self) -> bool {
        matches!(self, Self::Must | Self::MustNot)
    }
}

/// A requirement of the specification.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Requirement {
    /// `VTX-…`.
    pub id: String,
    /// A few words.
    pub title: String,
    /// How binding it is.
    pub level: Level,
    /// The sentence.
    pub text: String,
}

#[derive(Deserialize)]
struct Index {
    requirements: Vec<Requirement>,
}

/// What a case is about whose id is in no index: no case has such an id, which a test sees to.
static UNKNOWN: LazyLock<Requirement> = LazyLock::new(|| Requirement {
    id: String::new(),
    title: "unknown".to_owned(),
    level: Level::Must,
    text: String::new(),
});

static ALL: LazyLock<Vec<Requirement>> = LazyLock::new(|| {
    let index = serde_json::from_str::<Index>(include_str!("../../spec/requirements.json"));
    index.map(|index| index.requirements).unwrap_or_default()
});

/// The requirement that the case `id` is about: what is before the slash.
pub(super) fn of_case(id: &str) -> &'static Requirement {
    let id = id.split('/').next().unwrap_or_default();
    ALL.iter().find(|requirement| requirement.id == id).unwrap_or(&UNKNOWN)
}
