//! Server and client.

#[path = "../../../../../../src/bin/vortex/bench/worker/harness.rs"]
mod harness;
#[path = "../../../../../../src/bin/vortex/bench/worker/usage.rs"]
mod usage;
#[allow(unexpected_cfgs, reason = "the features are those of Vortex")]
#[path = "../../../../../../src/bin/vortex/bench/worker/work.rs"]
mod work;

use crate::job::{Job, Source};
use crate::side::Side;
use bytes::Bytes;
use futures_util::future::try_join_all;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use harness::{Result, all};
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status};
use vortex_grpc_tonic::bench::Part;
use vortex_grpc_tonic::bench::piece_stream_client::PieceStreamClient;
use vortex_grpc_tonic::bench::piece_stream_server::{PieceStream, PieceStreamServer};
use vortex_grpc_tonic::common::v2::Piece;
use vortex_grpc_tonic::dfdaemon::v2::dfdaemon_upload_client::DfdaemonUploadClient;
use vortex_grpc_tonic::dfdaemon::v2::dfdaemon_upload_server::{DfdaemonUpload, DfdaemonUploadServer};
use vortex_grpc_tonic::dfdaemon::v2::{
    DownloadCachePieceRequest, DownloadCachePieceResponse, DownloadPersistentCachePieceRequest,
    DownloadPersistentCachePieceResponse, DownloadPersistentPieceRequest, DownloadPersistentPieceResponse,
    DownloadPieceRequest, DownloadPieceResponse,
};
use vortex_p2p::runtime::{Runtime as _, TokioRuntime};
use vortex_p2p::wire::{Division, PieceSpan};
use work::Work;

/// Tuning: windows that no transfer here fills, the largest frames of HTTP/2, messages of the largest piece.
const STREAM_WINDOW: u32 = 16 << 20;
const CONNECTION_WINDOW: u32 = 32 << 20;
const FRAME: u32 = (1 << 24) - 1;
const MESSAGE: usize = (1 << 30) + (1 << 20);

/// Bytes of a message, where a piece is a stream of them: what Vortex reads at a time.
const PART: usize = 256 << 10;

const NAME: &str = "d7y";

pub(crate) fn run(job: &str) -> Result<()> {
    harness::run(job, serve, fetch)
}

#[derive(Clone)]
enum Content {
    File(Arc<File>),
    Memory(Bytes),
}

/// What is served.
#[derive(Clone)]
struct Pieces {
    content: Content,
    division: Division,
    /// Computed before, as a peer knows them of the pieces in its store.
    digests: Arc<[u32]>,
}

impl Pieces {
    fn open(job: &Job) -> Result<Self> {
        let content = match job.source {
            Source::File => Content::File(Arc::new(File::open(job.content())?)),
            Source::Memory => Content::Memory(std::fs::read(job.content())?.into()),
        };
        let mut pieces = Self { content, division: work::division(job)?, digests: Arc::new([]) };
        let spans = (0..u32::MAX).map_while(|number| pieces.division.piece(number));
        let digest =
            |span: PieceSpan| Ok(crc32fast::hash(&pieces.read(span.offset, span.length.get() as usize)?));
        pieces.digests = spans.map(digest).collect::<Result<_>>()?;
        Ok(pieces)
    }

    fn read(&self, offset: u64, length: usize) -> Result<Bytes> {
        match &self.content {
            Content::File(file) => {
                let mut buffer = vec![0; length];
                file.read_exact_at(&mut buffer, offset)?;
                Ok(buffer.into())
            }
            Content::Memory(bytes) => {
                let start = usize::try_from(offset)?;
                Ok(bytes.slice(start..start + length))
            }
        }
    }

    fn find(&self, number: u32) -> Result<(PieceSpan, String), Status> {
        let span = self.division.piece(number);
        let digest = self.digests.get(number as usize);
        let (Some(span), Some(digest)) = (span, digest) else {
            return Err(Status::not_found("no such piece"));
        };
        Ok((span, format!("crc32:{digest}")))
    }
}

#[tonic::async_trait]
impl DfdaemonUpload for Pieces {
    async fn download_piece(
        &self,
        request: Request<DownloadPieceRequest>,
    ) -> Result<Response<DownloadPieceResponse>, Status> {
        let number = request.get_ref().piece_number;
        let (span, digest) = self.find(number)?;
        let (offset, length) = (span.offset, span.length.get());
        let content =
            self.read(offset, length as usize).map_err(|error| Status::internal(error.to_string()))?;
        let (length, content) = (length.into(), Some(content));
        let piece = Piece { number, offset, length, digest, content, ..Piece::default() };
        Ok(Response::new(DownloadPieceResponse { piece: Some(piece), digest: None }))
    }

    async fn download_persistent_piece(
        &self,
        _request: Request<DownloadPersistentPieceRequest>,
    ) -> Result<Response<DownloadPersistentPieceResponse>, Status> {
        Err(Status::not_found("pieces of one kind only"))
    }

    async fn download_persistent_cache_piece(
        &self,
        _request: Request<DownloadPersistentCachePieceRequest>,
    ) -> Result<Response<DownloadPersistentCachePieceResponse>, Status> {
        Err(Status::not_found("pieces of one kind only"))
    }

    async fn download_cache_piece(
        &self,
        _request: Request<DownloadCachePieceRequest>,
    ) -> Result<Response<DownloadCachePieceResponse>, Status> {
        Err(Status::not_found("pieces of one kind only"))
    }
}

#[tonic::async_trait]
impl PieceStream for Pieces {
    type DownloadPieceStream = BoxStream<'static, Result<Part, Status>>;

    async fn download_piece(
        &self,
        request: Request<DownloadPieceRequest>,
    ) -> Result<Response<Self::DownloadPieceStream>, Status> {
        let (span, digest) = self.find(request.get_ref().piece_number)?;
        let (pieces, end) = (self.clone(), span.offset + u64::from(span.length.get()));
        let parts = (span.offset..end).step_by(PART).map(move |offset| {
            let length = (end - offset).min(PART as u64) as usize;
            let content = pieces.read(offset, length).map_err(|error| Status::internal(error.to_string()))?;
            let digest = if offset == span.offset { digest.clone() } else { String::new() };
            Ok(Part { content, digest })
        });
        Ok(Response::new(stream::iter(parts).boxed()))
    }
}

async fn serve(job: &Job) -> Result<SocketAddr> {
    let pieces = Pieces::open(job)?;
    let identity = rcgen::generate_simple_self_signed([NAME.to_owned()])?;
    let (certificate, key) = (identity.cert.pem(), identity.signing_key.serialize_pem());
    std::fs::write(job.dir.join("tonic.pem"), &certificate)?;
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let router = Server::builder()
        .tls_config(ServerTlsConfig::new().identity(Identity::from_pem(certificate, key)))?
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .tcp_nodelay(true)
        .add_service(DfdaemonUploadServer::new(pieces.clone()).max_encoding_message_size(MESSAGE))
        .add_service(PieceStreamServer::new(pieces));
    TokioRuntime.spawn(Box::pin(async move {
        // The client tells of what did not arrive.
        let _ = router.serve_with_incoming(TcpListenerStream::new(listener)).await;
    }));
    Ok(address)
}

async fn fetch(job: &'static Job, server: SocketAddr, work: &'static Work) -> Result<()> {
    let certificate = Certificate::from_pem(std::fs::read(job.dir.join("tonic.pem"))?);
    let endpoint = Endpoint::from_shared(format!("https://{server}"))?
        .tls_config(ClientTlsConfig::new().ca_certificate(certificate).domain_name(NAME))?
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .tcp_nodelay(true);
    let _idle = try_join_all((0..job.idle).map(|_| endpoint.connect())).await?;
    work.begin()?;
    let connections = try_join_all((0..job.connections).map(|_| endpoint.connect())).await?;
    let workers = connections.iter().cloned().cycle().take(job.concurrency.max(job.connections) as usize);
    let streamed = job.side == Side::TonicStream;
    all(workers.map(|channel| fetch_over(channel, work, streamed))).await
}

async fn fetch_over(channel: Channel, work: &'static Work, streamed: bool) -> Result<()> {
    let mut whole = DfdaemonUploadClient::new(channel.clone()).max_decoding_message_size(MESSAGE);
    let mut parts = PieceStreamClient::new(channel);
    while let Some(mut fetch) = work.next() {
        let request = DownloadPieceRequest { piece_number: fetch.number, ..DownloadPieceRequest::default() };
        let mut sum = crc32fast::Hasher::new();
        let mut claimed = String::new();
        if streamed {
            let mut answer = parts.download_piece(request).await?.into_inner();
            while let Some(part) = answer.message().await? {
                sum.update(&part.content);
                fetch.take(&part.content)?;
                claimed.push_str(&part.digest);
            }
        } else {
            let piece = whole.download_piece(request).await?.into_inner().piece.ok_or("no piece")?;
            let content = piece.content.ok_or("no content")?;
            sum.update(&content);
            fetch.take(&content)?;
            claimed = piece.digest;
        }
        if claimed != format!("crc32:{}", sum.finalize()) {
            return Err("a piece was not verified".into());
        }
        fetch.end();
    }
    Ok(())
}
