//! Whether a peer conforms to the specification, as far as the wire can show it.
//!
//! [`server`] plays a client, good and evil, against a server. [`client`] plays servers for a client. Each case is about one
//! requirement, whose id it has; where several are, a suffix tells them apart (`VTX-TCP-006/large`). A case has a
//! deadline, so that a run ends whatever the peer does.
//!
//! Neither uses the peers of this crate: bytes go over plain streams, and what arrives is read by a reader of its own that
//! says which requirement it finds broken ([`Draft`] writes what a server might send, right or wrong).
//!
//! # Verdicts
//! A case that meets a broken requirement of another case is skipped, and that one fails; so a run names what is wrong
//! and not all that follows from it. A SHOULD that is not met fails a run only where it is strict.

mod case;
pub mod client;
pub mod draft;
mod expected;
mod lane;
mod observe;
mod report;
mod requirement;
mod run;
pub mod server;
mod waits;

pub use case::{CaseReport, Transport, Verdict};
pub use draft::Draft;
pub use expected::{ExpectedFailures, NotExpected};
pub use report::{Summary, junit, table};
pub use requirement::{Level, Requirement};
pub use run::RunSettings;
pub use waits::Waits;
