//! Processes that die at every system call, and what the next process finds.
//!
//! A real `vortex` runs under ptrace, and the harness counts its system calls that change the disk or tell somebody
//! something. The process is killed with SIGKILL at the first of them, another one at the second, and so on until one
//! lives to its end; each write is also cut in half. So no moment is left to luck. After each kill, the store is opened
//! anew: nothing acknowledged may be missing, nothing may be served that is not what was imported, no partial file may
//! have the name of a whole one, and the same command has to come to its end.
//!
//! All points take some minutes: `cargo test --workspace --features production --test it kill:: -- --ignored --nocapture`.
//! The normal tests take a sample.

mod scenarios;
mod trace;
