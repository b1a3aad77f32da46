//! Compiles the .proto files, in Rust alone: protoc is not needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=../common.proto");
    println!("cargo:rerun-if-changed=../dfdaemon.proto");
    let files = protox::compile(["dfdaemon.proto"], [".."])?;
    tonic_prost_build::compile_fds(files)?;
    Ok(())
}
