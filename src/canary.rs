//! Bugs planted on purpose, to see whether tests find them.
//!
//! A build with `--cfg vortex_canary` has them all, and the environment variable `VORTEX_CANARY` names the one that is
//! alive. In any other build [`planted`] is `false` at compile time, and nothing of them is left.

/// Whether the bug called `name` is alive.
#[cfg(vortex_canary)]
pub(crate) fn planted(name: &str) -> bool {
    static ALIVE: std::sync::LazyLock<Option<String>> =
        std::sync::LazyLock::new(|| std::env::var("VORTEX_CANARY").ok());
    ALIVE.as_deref() == Some(name)
}

/// Whether the bug called `name` is alive: never, in a build like this.
#[cfg(not(vortex_canary))]
pub(crate) const fn planted(_name: &str) -> bool {
    false
}
