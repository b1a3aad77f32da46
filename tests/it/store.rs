//! The stores.

#[cfg(feature = "disk")]
mod ahead;
mod contract;
#[cfg(feature = "disk")]
mod crash;
#[cfg(feature = "disk")]
mod crash_disk;
#[cfg(feature = "disk")]
mod damaged;
#[cfg(feature = "disk")]
mod digest;
#[cfg(feature = "disk")]
mod files;
#[cfg(feature = "disk")]
mod group;
#[cfg(feature = "disk")]
mod interleaved;
#[cfg(feature = "disk")]
mod manifest;
#[cfg(feature = "disk")]
mod watched;
mod world;
