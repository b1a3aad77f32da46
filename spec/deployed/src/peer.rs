//! Dragonfly's storage, servers and clients, put together as its daemon does it.

use crate::Result;
use bytes::Bytes;
use dragonfly_client_config::dfdaemon::Config;
use dragonfly_client_storage::Storage;
use dragonfly_client_storage::client::PieceContentStream;
use dragonfly_client_storage::client::quic::QUICClient;
use dragonfly_client_storage::client::tcp::TCPClient;
use dragonfly_client_storage::server::quic::QUICServer;
use dragonfly_client_storage::server::tcp::TCPServer;
use dragonfly_client_util::id_generator::IDGenerator;
use dragonfly_client_util::ratelimiter::new_bandwidth_limiter;
use dragonfly_client_util::shutdown::Shutdown;
use futures_util::{FutureExt as _, stream};
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::{Mutex, mpsc};
use vortex_p2p::wire::{Division, PieceSpan};

const HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Tcp,
    Quic,
}

/// The defaults of a daemon, on this machine alone; and what it has is there when it starts again.
fn config() -> Arc<Config> {
    let mut config = Config::default();
    config.host.ip = Some(HOST);
    config.storage.server.ip = Some(HOST);
    config.storage.keep = true;
    Arc::new(config)
}

/// A daemon's storage, and its servers.
pub(crate) struct Peer {
    config: Arc<Config>,
    storage: Arc<Storage>,
}

impl Peer {
    pub(crate) async fn open(dir: &Path) -> Result<Self> {
        let config = config();
        let storage = Arc::new(Storage::new(config.clone(), dir, dir.join("log")).await?);
        Ok(Self { config, storage })
    }

    pub(crate) fn has(&self, task: &str) -> Result<bool> {
        Ok(self.storage.get_task(task)?.is_some_and(|task| task.is_finished()))
    }

    /// Takes `file` in as the content of `task`.
    pub(crate) async fn import(&self, task: &str, division: Division, file: &Path) -> Result<()> {
        let (file, timeout) = (File::open(file)?, self.config.storage.write_piece_timeout);
        self.begin(task, division).await?;
        for (number, span) in (0..u32::MAX).map_while(|number| Some((number, division.piece(number)?))) {
            let mut content = vec![0; span.length.get() as usize];
            file.read_exact_at(&mut content, span.offset)?;
            let piece = self.storage.piece_id(task, number);
            let (offset, length) = (span.offset, span.length.get().into());
            self.storage.download_piece_started(&piece, number, offset, length).await?;
            let mut content = stream::iter([Ok(Bytes::from(content))]);
            self.storage
                .download_piece_from_source_finished(&piece, task, offset, length, &mut content, timeout)
                .await?;
        }
        self.end(task)
    }

    /// Makes room for `task`.
    pub(crate) async fn begin(&self, task: &str, division: Division) -> Result<()> {
        let piece_length = division.piece_length().get().into();
        self.storage.download_task_started(task, piece_length, division.length(), None).await?;
        Ok(())
    }

    pub(crate) fn end(&self, task: &str) -> Result<()> {
        self.storage.download_task_finished(task)?;
        Ok(())
    }

    /// Writes a piece that a parent sends where the parent says, and verifies its digest.
    pub(crate) async fn take(&self, task: &str, number: u32, span: PieceSpan, mut sent: Sent) -> Result<()> {
        let piece = self.storage.piece_id(task, number);
        let length = span.length.get().into();
        self.storage.download_piece_started(&piece, number, span.offset, length).await?;
        let (offset, digest, content) = (sent.offset, &*sent.digest, &mut sent.content);
        let timeout = self.config.storage.write_piece_timeout;
        let taken = self
            .storage
            .download_piece_from_parent_finished(&piece, task, offset, length, digest, "", content, timeout);
        if let Err(error) = taken.await {
            self.storage.download_piece_failed(&piece)?;
            return Err(error.into());
        }
        Ok(())
    }

    /// Writes the content of `task` to a file.
    pub(crate) async fn copy(&self, task: &str, to: &Path) -> Result<()> {
        Ok(self.storage.copy_task(task, to).await?)
    }

    /// Serves until the process ends; where.
    pub(crate) fn serve(&self, transport: Transport) -> Result<SocketAddr> {
        let ids = Arc::new(IDGenerator::new(HOST.to_string(), "deployed".to_owned(), false));
        let limiter = Arc::new(new_bandwidth_limiter(self.config.upload.bandwidth_limit));
        let (storage, shutdown) = (self.storage.clone(), Shutdown::new());
        let (done, _) = mpsc::unbounded_channel();
        // Its servers do not say which port they were given, so they are given one that is free now.
        let (address, mut serving) = match transport {
            Transport::Tcp => {
                let address = TcpListener::bind((HOST, 0))?.local_addr()?;
                let config = self.config.clone();
                let mut server = TCPServer::new(config, address, ids, storage, limiter, shutdown, done);
                (address, async move { server.run().await }.boxed())
            }
            Transport::Quic => {
                let address = UdpSocket::bind((HOST, 0))?.local_addr()?;
                let mut server = QUICServer::new(address, ids, storage, limiter, shutdown, done);
                (address, async move { server.run().await }.boxed())
            }
        };
        // They listen before they wait for anything.
        if let Some(ended) = (&mut serving).now_or_never() {
            ended?;
            return Err("the server has ended".into());
        }
        tokio::spawn(async move {
            if let Err(error) = serving.await {
                eprintln!("error: {error}");
            }
        });
        Ok(address)
    }
}

/// A piece that a parent sends.
pub(crate) struct Sent {
    pub(crate) content: PieceContentStream,
    pub(crate) offset: u64,
    pub(crate) digest: String,
}

/// A client of one parent: a connection over QUIC, as many as there are requests at a time over TCP.
#[derive(Clone)]
pub(crate) enum Client {
    Tcp(TCPClient),
    Quic { address: String, current: Arc<Mutex<Option<QUICClient>>> },
}

impl Client {
    /// Nothing is dialled before the first request.
    pub(crate) fn new(transport: Transport, address: SocketAddr) -> Self {
        let address = address.to_string();
        match transport {
            Transport::Tcp => Self::Tcp(TCPClient::new(config(), address)),
            Transport::Quic => Self::Quic { address, current: Arc::default() },
        }
    }

    pub(crate) async fn request(&self, task: &str, number: u32) -> Result<Sent> {
        let (content, offset, digest) = match self {
            Self::Tcp(client) => client.download_piece(number, task).await?,
            Self::Quic { .. } => self.connected().await?.download_piece(number, task).await?,
        };
        Ok(Sent { content, offset, digest })
    }

    /// Over QUIC, the connection that there is, or another one where it has ended.
    pub(crate) async fn connected(&self) -> Result<QUICClient> {
        let Self::Quic { address, current } = self else { return Err("TCP connects with a request".into()) };
        let mut current = current.lock().await;
        if let Some(client) = current.as_ref().filter(|client| !client.is_closed()) {
            return Ok(client.clone());
        }
        let client = QUICClient::new(config(), address.clone()).await?;
        Ok(current.insert(client).clone())
    }
}
