//! The stores.

mod contract;
mod world;
