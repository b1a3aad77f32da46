//! What tonic makes of `spec/grpc`: the client and the server that a peer without Vortex has, for tests.
//!
//! It is a package of its own so that nobody who builds or tests Vortex has to build a .proto compiler.

/// Package `common`.
pub mod common {
    /// Package `common.v2`.
    #[allow(missing_docs, reason = "generated")]
    pub mod v2 {
        tonic::include_proto!("common.v2");
    }
}

/// Package `dfdaemon`.
pub mod dfdaemon {
    /// Package `dfdaemon.v2`.
    #[allow(missing_docs, clippy::pedantic, reason = "generated")]
    pub mod v2 {
        tonic::include_proto!("dfdaemon.v2");
    }
}

/// Package `bench`.
pub mod bench {
    #![allow(missing_docs, clippy::pedantic, reason = "generated")]
    tonic::include_proto!("bench");
}
