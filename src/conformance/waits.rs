//! How long to wait for what a peer does at once, and for what it does not do.

use std::time::Duration;

/// Patience.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waits {
    /// For what the peer has to do now. It only passes where the peer does not.
    pub soon: Duration,
    /// How long nothing has to happen to be taken for nothing.
    pub quiet: Duration,
}

impl Default for Waits {
    /// 5 s and 500 ms: a peer on another continent, or on a machine with much to do, is not taken for a broken one.
    fn default() -> Self {
        Self { soon: Duration::from_secs(5), quiet: Duration::from_millis(500) }
    }
}
