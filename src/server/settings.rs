//! What a server is told.

use super::ServerLimits;
use crate::session::Deadlines;

/// The settings of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerSettings {
    /// How long each step may take.
    pub deadlines: Deadlines,
    /// How much is taken on at a time.
    pub limits: ServerLimits,
    /// Whether the extensions are answered. Without them, a server is to its clients like a deployed one.
    pub extensions: bool,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self { deadlines: Deadlines::default(), limits: ServerLimits::default(), extensions: true }
    }
}
