//! quinn without Vortex: a stream for each piece, that carries 12 bytes there (offset, length) and the content back.

use super::super::job::{Job, Source};
use super::super::side::Side;
use super::vortex::{self, client_tls, network, quic_settings, runtime, server_tls};
use super::work::Work;
use super::{LOOPBACK, Result, all};
use bytes::{Buf as _, Bytes};
use futures_util::future::try_join_all;
use quinn::congestion::BbrConfig;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{AckFrequencyConfig, Connection, Endpoint, RecvStream, SendStream, TransportConfig, VarInt};
use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::Duration;
use vortex_p2p::transport::quic::{QuicClient, QuicEndpoint};
use vortex_p2p::transport::tls::Crypto;

/// Bytes that are read from the file and handed to quinn at a time, as Vortex does.
const READ_LEN: usize = 256 << 10;

#[derive(Clone)]
enum Content {
    File(Arc<File>),
    Memory(Bytes),
}

impl Content {
    fn read(&self, offset: u64, length: usize) -> Result<Bytes> {
        match self {
            Self::File(file) => {
                let mut buffer = vec![0; length];
                file.read_exact_at(&mut buffer, offset)?;
                Ok(buffer.into())
            }
            Self::Memory(bytes) => {
                let start = usize::try_from(offset)?;
                Ok(bytes.slice(start..start + length))
            }
        }
    }
}

/// What is set in Dragonfly 1.5: windows of 16 MiB and BBR at the server, with datagrams of quinn's default size.
fn deployed() -> TransportConfig {
    const WINDOW: u32 = 16 << 20;
    let mut transport = TransportConfig::default();
    transport
        .keep_alive_interval(Some(Duration::from_secs(3)))
        .ack_frequency_config(Some(AckFrequencyConfig::default()))
        .send_window(WINDOW.into())
        .receive_window(VarInt::from_u32(WINDOW))
        .stream_receive_window(VarInt::from_u32(WINDOW));
    transport
}

/// What each side would have by itself: Vortex prefers AES-128-GCM, rustls AES-256-GCM.
fn crypto(side: Side) -> Crypto {
    match side {
        Side::RawQuic => vortex::crypto(),
        _ => Crypto::with_provider(runtime(), Arc::new(rustls::crypto::ring::default_provider())),
    }
}

pub(super) async fn serve(job: &Job) -> Result<SocketAddr> {
    let content = match job.source {
        Source::File => Content::File(Arc::new(File::open(job.content())?)),
        Source::Memory => Content::Memory(std::fs::read(job.content())?.into()),
    };
    let tls = server_tls(&crypto(job.side))?;
    if job.side == Side::RawQuic {
        let endpoint =
            QuicEndpoint::bind(runtime(), network(), LOOPBACK, quic_settings(job)?, Some(&tls)).await?;
        let address = endpoint.local_addr()?;
        runtime().spawn(Box::pin(async move {
            while let Some(incoming) = endpoint.accept().await {
                attend(endpoint.let_in(incoming), content.clone());
            }
        }));
        return Ok(address);
    }
    let mut config =
        quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls.config().clone())?));
    if job.side == Side::QuinnDeployed {
        let mut transport = deployed();
        transport.congestion_controller_factory(Arc::new(BbrConfig::default()));
        config.transport_config(Arc::new(transport));
    }
    let endpoint = Endpoint::server(config, LOOPBACK)?;
    let address = endpoint.local_addr()?;
    runtime().spawn(Box::pin(async move {
        while let Some(incoming) = endpoint.accept().await {
            attend(incoming.accept(), content.clone());
        }
    }));
    Ok(address)
}

/// Serves a connection in a task, and each of its streams.
fn attend(connecting: Result<quinn::Connecting, quinn::ConnectionError>, content: Content) {
    let Ok(connecting) = connecting else { return };
    runtime().spawn(Box::pin(async move {
        let Ok(connection) = connecting.await else { return };
        while let Ok((send, receive)) = connection.accept_bi().await {
            let content = content.clone();
            runtime().spawn(Box::pin(async move {
                // The client tells of what did not arrive.
                let _ = answer(send, receive, content).await;
            }));
        }
    }));
}

async fn answer(mut send: SendStream, mut receive: RecvStream, content: Content) -> Result<()> {
    let mut request = [0; 12];
    receive.read_exact(&mut request).await?;
    let mut request = request.as_slice();
    let (mut offset, mut left) = (request.get_u64(), request.get_u32() as usize);
    while left > 0 {
        let part = content.read(offset, left.min(READ_LEN))?;
        offset += part.len() as u64;
        left -= part.len();
        send.write_chunk(part).await?;
    }
    send.finish()?;
    Ok(())
}

pub(super) async fn fetch(job: &Job, server: SocketAddr, work: &'static Work) -> Result<()> {
    let trust = client_tls(&crypto(job.side))?;
    let settings = quic_settings(job)?;
    let ours = QuicEndpoint::bind(runtime(), network(), LOOPBACK, settings.clone(), None).await?;
    let dialer = QuicClient::new(runtime(), &settings, trust.clone());
    let plain = Endpoint::client(LOOPBACK)?;
    let dial = async || -> Result<Connection> {
        if job.side == Side::RawQuic {
            return Ok(ours.dial(&dialer, server)?.established().await?);
        }
        let crypto = QuicClientConfig::try_from(trust.for_peer(server))?;
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        if job.side == Side::QuinnDeployed {
            config.transport_config(Arc::new(deployed()));
        }
        Ok(plain.connect_with(config, server, &trust.name().to_str())?.await?)
    };
    let mut idle = Vec::new();
    for _ in 0..job.idle {
        idle.push(dial().await?);
    }
    work.begin()?;
    let connections = try_join_all((0..job.connections).map(|_| dial())).await?;
    let workers = connections.iter().cloned().cycle().take(job.concurrency.max(job.connections) as usize);
    let verify = job.side == Side::QuinnDeployed;
    all(workers.map(|connection| fetch_over(connection, work, verify))).await
}

#[allow(clippy::disallowed_methods, reason = "this is not the protocol, but what it is compared with")]
async fn fetch_over(connection: Connection, work: &'static Work, verify: bool) -> Result<()> {
    while let Some(mut fetch) = work.next() {
        let (mut send, mut receive) = connection.open_bi().await?;
        let length = fetch.span.length.get();
        send.write_all(&[&fetch.span.offset.to_be_bytes()[..], &length.to_be_bytes()].concat()).await?;
        send.finish()?;
        let mut sum = crc32fast::Hasher::new();
        let mut chunks = [const { Bytes::new() }; 32];
        while let Some(count) = receive.read_chunks(&mut chunks).await? {
            for chunk in chunks.iter_mut().take(count) {
                if verify {
                    sum.update(chunk);
                }
                fetch.take(&std::mem::take(chunk))?;
            }
        }
        std::hint::black_box(sum.finalize());
        fetch.end();
    }
    Ok(())
}
