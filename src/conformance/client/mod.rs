//! Plays servers, good and evil, for a client.
