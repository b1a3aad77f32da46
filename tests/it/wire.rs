//! Bytes and packets: properties, known answers, and a comparison with the published codec.

mod allocation;
pub(crate) mod build;
mod differential;
mod digest;
mod division;
mod dumps;
mod extension;
mod generate;
#[cfg(feature = "cli")]
pub(crate) use generate::damage;
mod mutation;
mod order;
mod round_trip;
mod splits;
mod text;

/// As many cases of a property as `PROPTEST_CASES` says under Miri, which takes a thousand times as long; `many` elsewhere.
fn cases(many: u32) -> proptest::test_runner::Config {
    let said = proptest::test_runner::Config::default();
    if cfg!(miri) { said } else { proptest::test_runner::Config { cases: many, ..said } }
}
