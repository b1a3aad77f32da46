//! The listener: `/metrics` and `/healthy`, and nothing else.

use crate::runtime::SharedRuntime;
use crate::transport::{ByteStream, Listener};
use ::http::{Method, Request, Response, StatusCode, header};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Connections at a time; those above wait in the kernel. A scraper needs one, and a person with a browser a few.
const CONNECTIONS: usize = 16;

/// How long a connection may last, for its one request and its answer.
const LONGEST: Duration = Duration::from_secs(10);

/// Pause after an accept that failed for want of resources.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What is shown.
pub trait Page: Send + Sync + 'static {
    /// The text for Prometheus.
    ///
    /// # Errors
    /// What went wrong; the scraper is told.
    fn metrics(&self) -> Result<String, prometheus::Error>;

    /// Whether requests are taken.
    fn healthy(&self) -> bool;
}

/// Answers on `listener` as long as it is polled. It is bounded in connections, in their time, and in what a request may
/// have: so it needs no limits of its own, and no client can do harm by it beyond reading the figures.
pub async fn serve(runtime: SharedRuntime, mut listener: Box<dyn Listener>, page: Arc<dyn Page>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    while let Ok(place) = places.clone().acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let (runtime, page) = (runtime.clone(), page.clone());
                runtime.clone().spawn(Box::pin(async move {
                    if runtime.timeout(LONGEST, answer(stream, page)).await.is_err() {
                        tracing::debug!("a scrape took too long");
                    }
                    drop(place);
                }));
            }
            Err(error) => {
                tracing::debug!(%error, "accept failed");
                runtime.sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn answer(stream: Box<dyn ByteStream>, page: Arc<dyn Page>) {
    let service = service_fn(|request| std::future::ready(Ok::<_, Infallible>(respond(&request, &*page))));
    let mut http = hyper::server::conn::http1::Builder::new();
    // The smallest that hyper takes.
    http.keep_alive(false).max_buf_size(8 << 10);
    if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a scrape failed");
    }
}

fn respond(request: &Request<Incoming>, page: &dyn Page) -> Response<Full<Bytes>> {
    let (status, text) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics") => match page.metrics() {
            Ok(text) => (StatusCode::OK, text),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        },
        (&Method::GET | &Method::HEAD, "/healthy") => match page.healthy() {
            true => (StatusCode::OK, "healthy\n".to_owned()),
            false => (StatusCode::SERVICE_UNAVAILABLE, "shutting down\n".to_owned()),
        },
        (&Method::GET | &Method::HEAD, _) => {
            (StatusCode::NOT_FOUND, "/metrics and /healthy are here\n".to_owned())
        }
        _ => (StatusCode::METHOD_NOT_ALLOWED, "GET only\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let kind = ::http::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
