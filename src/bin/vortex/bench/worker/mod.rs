//! The two processes of a transfer.

#[cfg(feature = "grpc")]
mod grpc;
mod harness;
#[cfg(all(feature = "sendfile", target_os = "linux"))]
mod iperf;
mod raw_quic;
#[cfg(all(feature = "sendfile", target_os = "linux"))]
mod raw_tcp;
mod usage;
mod vortex;
mod work;

use super::job::Job;
use super::side::Side;
use crate::exit::{Exit, Failure};
use harness::{Result, all};
use std::net::{Ipv4Addr, SocketAddr};
use work::Work;

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// The hidden subcommand: does what `job` says, talking to the process that measures by stdin and stdout.
pub(crate) fn run(job: &str) -> std::result::Result<Exit, Failure> {
    harness::run(job, serve, fetch)
        .map_err(|error| Failure::new(Exit::Usage, format!("a worker: {error}")))?;
    Ok(Exit::Done)
}

async fn serve(job: &Job) -> Result<SocketAddr> {
    match job.side {
        Side::Quic => vortex::serve_quic(job).await,
        Side::Tcp => vortex::serve_tcp(job).await,
        Side::RawQuic | Side::QuinnDeployed | Side::QuinnDefault => raw_quic::serve(job).await,
        #[cfg(feature = "grpc")]
        Side::Grpc => grpc::serve(job).await,
        #[cfg(all(feature = "sendfile", target_os = "linux"))]
        Side::RawTcp | Side::Curl => raw_tcp::serve(job),
        #[cfg(all(feature = "sendfile", target_os = "linux"))]
        Side::Iperf3 => iperf::serve(),
        _ => Err("not in this build".into()),
    }
}

async fn fetch(job: &'static Job, server: SocketAddr, work: &'static Work) -> Result<()> {
    match job.side {
        Side::Quic => vortex::fetch_quic(job, server, work).await,
        Side::Tcp => vortex::fetch_tcp(job, server, work).await,
        Side::RawQuic | Side::QuinnDeployed | Side::QuinnDefault => raw_quic::fetch(job, server, work).await,
        #[cfg(feature = "grpc")]
        Side::Grpc => grpc::fetch(job, server, work).await,
        #[cfg(all(feature = "sendfile", target_os = "linux"))]
        Side::RawTcp => raw_tcp::fetch(job, server, work),
        #[cfg(all(feature = "sendfile", target_os = "linux"))]
        Side::Curl => raw_tcp::curl(job, server, work),
        #[cfg(all(feature = "sendfile", target_os = "linux"))]
        Side::Iperf3 => iperf::fetch(job, server, work),
        _ => Err("not in this build".into()),
    }
}
