//! The stores.

mod contract;
#[cfg(feature = "disk")]
mod crash;
#[cfg(feature = "disk")]
mod crash_disk;
#[cfg(feature = "disk")]
mod group;
mod world;
