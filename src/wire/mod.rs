//! bytes <-> packets.
