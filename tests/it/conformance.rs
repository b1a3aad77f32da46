//! Conformance: our own peers pass every case, and peers with one planted fault are each caught by the case that names it.

mod own_client;
mod own_server;
mod world;
