//! The worker of `vortex bench` whose server and client are tonic's: pieces over gRPC as someone without Vortex would move
//! them, tuned.
//!
//! It has the harness of the other workers, so that the same is measured in the same way: a job as its only argument, and
//! words on stdin and stdout. The content comes from the file, and each piece is verified by its crc32 at the client.

#[allow(dead_code, reason = "the worker needs a part of what the measuring process knows")]
#[path = "../../../../../src/bin/vortex/bench/job.rs"]
mod job;
#[allow(dead_code, unexpected_cfgs, reason = "as above; the features are those of Vortex")]
#[path = "../../../../../src/bin/vortex/bench/side.rs"]
mod side;
mod worker;

fn main() -> std::process::ExitCode {
    // As the other workers have it: glibc keeps what is freed.
    drop(std::hint::black_box(Vec::<u8>::with_capacity(4 << 20)));
    let job = std::env::args().nth(2).unwrap_or_default();
    match worker::run(&job) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("expected a job of vortex bench: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}
