//! Compiles the .proto files, in Rust alone: protoc is not needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=../common.proto");
    println!("cargo:rerun-if-changed=../dfdaemon.proto");
    println!("cargo:rerun-if-changed=proto/bench.proto");
    let files = protox::compile(["dfdaemon.proto", "bench.proto"], ["..", "proto"])?;
    // Content as it came, instead of a copy of it.
    tonic_prost_build::configure().bytes(".").compile_fds(files)?;
    Ok(())
}
