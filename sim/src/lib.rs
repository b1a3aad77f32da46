//! Deterministic simulation of Vortex peers: real quinn, real TLS, the real client and server, on virtual time, over a
//! network and disks that fail in every way that networks and disks do.
//!
//! One seed fixes a run to the byte: see [`trace`]. What runs the hosts is a [`world`]; what happens in it is a
//! [`scenario`]; what goes wrong is in [`net`], [`disk`] and [`faults`].

pub mod canaries;
pub mod crypto;
pub mod disk;
pub mod faults;
pub mod host;
pub mod mask;
pub mod net;
pub mod notes;
pub mod pcap;
pub mod plot;
pub mod regression;
pub mod report;
pub mod research;
pub mod rng;
pub mod runner;
pub mod scenario;
pub mod shrink;
pub mod trace;
pub mod world;
