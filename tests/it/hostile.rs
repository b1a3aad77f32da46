//! A server process under attack over real sockets, its memory, and what an honest client beside the attacker still gets; and
//! the same server under many clients for long.
//!
//! The normal tests attack for as long as an honest client takes for some pieces, and hold memory against a bound. The
//! figures of the book are printed by
//!
//! ```text
//! cargo test --release --features production --test it hostile::attacks::table -- --ignored --nocapture
//! VORTEX_ENDURANCE=3600 cargo test --release --features production --test it hostile::endurance -- --ignored --nocapture
//! ```

mod attacks;
mod clients;
mod declared;
mod endurance;
mod liar;
mod replay;
mod victim;
