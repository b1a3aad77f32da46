//! gRPC with TLS, by the server and client that this crate has for it: each piece is one message.

use super::super::content;
use super::super::job::Job;
use super::vortex::{client_tls, crypto, drain, network, runtime, server_tls, storage};
use super::work::Work;
use super::{LOOPBACK, Result, all};
use futures_util::future::try_join_all;
use std::net::SocketAddr;
use vortex_p2p::client::{Ask, GrpcClient};
use vortex_p2p::session::Deadlines;
use vortex_p2p::transport::tls;

pub(super) async fn serve(job: &Job) -> Result<SocketAddr> {
    let listener = network().listen(LOOPBACK).await?;
    let address = listener.local_addr()?;
    storage(job).await?.serve_grpc(listener, Some(server_tls(&crypto())?));
    Ok(address)
}

pub(super) async fn fetch(job: &Job, server: SocketAddr, work: &'static Work) -> Result<()> {
    let trust = client_tls(&crypto())?;
    let dial = async || -> Result<GrpcClient> {
        let stream = tls::connect_http2(&trust, server, network().connect(server).await?).await?;
        Ok(GrpcClient::new(stream, server, runtime(), Deadlines::default()).await?)
    };
    let mut idle = Vec::new();
    for _ in 0..job.idle {
        idle.push(dial().await?);
    }
    work.begin()?;
    let connections = try_join_all((0..job.connections).map(|_| dial())).await?;
    let workers = connections.iter().cloned().cycle().take(job.concurrency.max(job.connections) as usize);
    all(workers.map(|client| async move {
        while let Some(mut fetch) = work.next() {
            let mut answer = client.request(Ask::new(content::key().piece(fetch.number))).await?;
            drain(&mut answer, &mut fetch).await?;
            fetch.end();
        }
        Ok(())
    }))
    .await
}
