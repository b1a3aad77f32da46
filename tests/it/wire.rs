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
