//! Vortex: its server and clients, as an application uses them.

use super::super::content;
use super::super::job::{Job, Source};
use super::work::{Work, division};
use super::{LOOPBACK, Result, all};
use bytes::Bytes;
use futures_util::future::try_join_all;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use vortex_p2p::client::{Answer, Ask, QuicClient, TcpClient};
use vortex_p2p::runtime::{SharedRuntime, TokioRuntime};
use vortex_p2p::server::{ServerLimits, ServerSettings, StorageServer};
use vortex_p2p::session::Deadlines;
use vortex_p2p::store::disk::{DiskStore, OsDisk};
use vortex_p2p::store::{MemoryStore, NewTask, SharedStore};
use vortex_p2p::transport::quic::{self, DatagramSize, QuicEndpoint, QuicSettings};
use vortex_p2p::transport::tls::{Admission, ClientTls, Crypto, Identity, ServerIdentity, ServerTls, Trust};
use vortex_p2p::transport::{Network, SocketSettings, TokioNetwork};
use vortex_p2p::wire::Algorithm;

pub(super) fn runtime() -> SharedRuntime {
    Arc::new(TokioRuntime)
}

pub(super) fn network() -> Arc<dyn Network> {
    Arc::new(TokioNetwork::new(SocketSettings::default()))
}

pub(super) fn crypto() -> Crypto {
    Crypto::new(runtime())
}

pub(super) fn server_tls(crypto: &Crypto) -> Result<ServerTls> {
    let identity = ServerIdentity::new(Identity::self_signed(crypto)?);
    Ok(ServerTls::new(crypto, &identity, &Admission::Anyone)?)
}

pub(super) fn client_tls(crypto: &Crypto) -> Result<Arc<ClientTls>> {
    Ok(Arc::new(ClientTls::new(crypto, &Trust::Insecure, None)?))
}

pub(super) fn quic_settings(job: &Job) -> Result<QuicSettings> {
    Ok(QuicSettings {
        largest_datagram: job.datagram.map(DatagramSize::new).transpose()?,
        ..QuicSettings::default()
    })
}

/// A server of the content, with limits that do not get in the way.
pub(super) async fn storage(job: &Job) -> Result<StorageServer> {
    let store: SharedStore = match job.source {
        Source::File => Arc::new(DiskStore::open(Arc::new(OsDisk::open(job.store())?), runtime()).await?),
        Source::Memory => {
            let store = MemoryStore::new(runtime());
            let whole = Bytes::from(std::fs::read(job.content())?);
            let task = NewTask { key: content::key(), division: division(job)?, digest: None };
            store.insert(task, Algorithm::Crc32, &whole).await?;
            Arc::new(store)
        }
    };
    let limits = ServerLimits {
        connections: 1 << 20,
        connections_per_address: 1 << 20,
        answers_per_connection: 1 << 20,
        half_open: 1 << 20,
        answers: 1 << 20,
        memory_per_connection: 1 << 30,
        ..ServerLimits::default()
    };
    let settings = ServerSettings {
        // The connections that a measurement keeps idle have to stay.
        deadlines: Deadlines { idle: std::time::Duration::from_secs(3600), ..Deadlines::default() },
        limits,
        ..ServerSettings::default()
    };
    Ok(StorageServer::new(runtime(), store, settings))
}

pub(super) async fn serve_quic(job: &Job) -> Result<SocketAddr> {
    let tls = server_tls(&crypto())?;
    let endpoint =
        QuicEndpoint::bind(runtime(), network(), LOOPBACK, quic_settings(job)?, Some(&tls)).await?;
    let address = endpoint.local_addr()?;
    storage(job).await?.serve_quic(endpoint);
    Ok(address)
}

pub(super) async fn serve_tcp(job: &Job) -> Result<SocketAddr> {
    let listener = network().listen(LOOPBACK).await?;
    let address = listener.local_addr()?;
    storage(job).await?.serve_tcp(listener);
    Ok(address)
}

pub(super) async fn fetch_quic(job: &Job, server: SocketAddr, work: &'static Work) -> Result<()> {
    let settings = quic_settings(job)?;
    let endpoint = QuicEndpoint::bind(runtime(), network(), LOOPBACK, settings.clone(), None).await?;
    let dialer = quic::QuicClient::new(runtime(), &settings, client_tls(&crypto())?);
    let dial = async || -> Result<QuicClient> {
        let connection = endpoint.dial(&dialer, server)?.established().await?;
        Ok(QuicClient::new(connection, runtime(), Deadlines::default()))
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

pub(super) async fn fetch_tcp(job: &Job, server: SocketAddr, work: &'static Work) -> Result<()> {
    let mut idle = Vec::new();
    for _ in 0..job.idle {
        idle.push(network().connect(server).await?);
    }
    work.begin()?;
    all((0..job.concurrency.max(job.connections)).map(|_| fetch_tcp_alone(server, work))).await
}

/// On a connection of its own, since a connection has one request at a time.
async fn fetch_tcp_alone(server: SocketAddr, work: &'static Work) -> Result<()> {
    let client = TcpClient::new(network().connect(server).await?, runtime(), Deadlines::default());
    let slot = Arc::new(Mutex::new(Some(client)));
    while let Some(mut fetch) = work.next() {
        let client = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        let client = client.ok_or("the connection was not given back")?;
        let back = slot.clone();
        let give_back =
            Box::new(move |client| *back.lock().unwrap_or_else(PoisonError::into_inner) = Some(client));
        let mut answer = client.request(Ask::new(content::key().piece(fetch.number)), give_back).await?;
        drain(&mut answer, &mut fetch).await?;
        fetch.end();
    }
    Ok(())
}

/// Takes an answer to its verified end.
pub(super) async fn drain(answer: &mut Answer, fetch: &mut super::work::Fetch<'_>) -> Result<()> {
    while let Some(bytes) = answer.chunk().await? {
        fetch.take(&bytes)?;
    }
    match answer.received() {
        Some(received) if received.verified.is_some() => Ok(()),
        _ => Err("a piece was not verified".into()),
    }
}
