//! The other side, on HTTP/2 alone.

use super::LOOPBACK;
use bytes::Bytes;
use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderMap, Method, Request, Response};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};

/// What a raw client gets.
#[derive(Debug)]
pub(super) struct Got {
    pub(super) http: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    pub(super) trailers: HeaderMap,
}

impl Got {
    /// The status, wherever it is.
    pub(super) fn status(&self) -> &str {
        let status = self.trailers.get("grpc-status").or(self.headers.get("grpc-status"));
        status.expect("a status").to_str().unwrap()
    }
}

/// A raw client.
pub(super) async fn connect(address: SocketAddr) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (requests, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(async move {
        let _ = connection.await;
    });
    requests
}

pub(super) fn post(path: &str) -> Request<()> {
    let request = Request::post(format!("http://peer{path}"));
    request.header("content-type", "application/grpc+proto").header("te", "trailers").body(()).unwrap()
}

/// Sends `body` in frames of `frame` bytes, and begins to wait for the response.
pub(super) async fn send(
    requests: &SendRequest<Bytes>,
    request: Request<()>,
    body: &[u8],
    frame: usize,
) -> Result<Response<RecvStream>, h2::Error> {
    let mut requests = requests.clone().ready().await?;
    let (response, mut send) = requests.send_request(request, false)?;
    for part in body.chunks(frame) {
        // The server may have answered.
        let _ = send.send_data(Bytes::copy_from_slice(part), false);
    }
    let _ = send.send_data(Bytes::new(), true);
    response.await
}

pub(super) async fn receive(response: Response<RecvStream>) -> Result<Got, h2::Error> {
    let (head, mut stream) = response.into_parts();
    let mut body = Vec::new();
    while let Some(bytes) = stream.data().await {
        let bytes = bytes?;
        stream.flow_control().release_capacity(bytes.len())?;
        body.extend_from_slice(&bytes);
    }
    let trailers = stream.trailers().await?.unwrap_or_default();
    Ok(Got { http: head.status.as_u16(), headers: head.headers, body, trailers })
}

/// One call.
pub(super) async fn call(requests: &SendRequest<Bytes>, path: &str, body: &[u8]) -> Got {
    receive(send(requests, post(path), body, 1 << 14).await.unwrap()).await.unwrap()
}

/// What a raw server does with each call.
#[derive(Clone)]
pub(super) enum Reply {
    /// Headers, these bytes in frames of the given size, and the status; no trailers without one.
    Message(Vec<u8>, usize, Option<&'static str>),
    /// A status, and nothing else.
    Status(&'static str, &'static str),
    /// Another HTTP status.
    Http(u16),
    /// Nothing.
    Hang,
    /// Headers and these bytes, then nothing.
    HangAfter(Vec<u8>),
    /// Headers and these bytes, then the stream is reset.
    ResetAfter(Vec<u8>, Reason),
    /// Headers and these bytes, then the connection is gone.
    CutAfter(Vec<u8>),
    /// The call is refused before anything looked at it.
    Refuse,
}

/// A raw server that does the same with every call. It checks the requests, which are to be for this method and bytes.
pub(super) async fn serve(path: &'static str, request: Vec<u8>, reply: Reply) -> SocketAddr {
    let listener = TcpListener::bind(LOOPBACK).await.unwrap();
    let address = listener.local_addr().unwrap();
    let expected = Arc::new((path, request));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (reply, expected) = (reply.clone(), expected.clone());
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                let cut = Arc::new(tokio::sync::Notify::new());
                loop {
                    let call = tokio::select! {
                        biased;
                        () = cut.notified() => return,
                        call = connection.accept() => call,
                    };
                    let Some(Ok((request, respond))) = call else { return };
                    tokio::spawn(answer(request, respond, reply.clone(), expected.clone(), cut.clone()));
                }
            });
        }
    });
    address
}

async fn answer(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    reply: Reply,
    expected: Arc<(&'static str, Vec<u8>)>,
    cut: Arc<tokio::sync::Notify>,
) {
    assert_eq!(request.method(), Method::POST);
    assert_eq!(request.uri().path(), expected.0);
    assert_eq!(request.headers()["content-type"], "application/grpc");
    assert_eq!(request.headers()["te"], "trailers");
    let mut stream = request.into_body();
    let mut body = Vec::new();
    while let Some(bytes) = stream.data().await {
        body.extend_from_slice(&bytes.unwrap());
    }
    assert_eq!(body, expected.1);

    let ok = || Response::builder().header("content-type", "application/grpc").body(()).unwrap();
    match reply {
        Reply::Message(bytes, frame, status) => {
            let mut send = respond.send_response(ok(), false).unwrap();
            for part in bytes.chunks(frame) {
                send.send_data(Bytes::copy_from_slice(part), false).unwrap();
            }
            match status {
                Some(status) => {
                    let mut trailers = HeaderMap::new();
                    trailers.insert("grpc-status", status.parse().unwrap());
                    send.send_trailers(trailers).unwrap();
                }
                None => send.send_data(Bytes::new(), true).unwrap(),
            }
        }
        Reply::Status(code, message) => {
            let mut response = ok();
            response.headers_mut().insert("grpc-status", code.parse().unwrap());
            response.headers_mut().insert("grpc-message", message.parse().unwrap());
            respond.send_response(response, true).unwrap();
        }
        Reply::Http(status) => {
            respond.send_response(Response::builder().status(status).body(()).unwrap(), true).unwrap();
        }
        Reply::Hang => std::future::pending().await,
        Reply::HangAfter(bytes) => {
            let mut send = respond.send_response(ok(), false).unwrap();
            send.send_data(bytes.into(), false).unwrap();
            std::future::pending().await
        }
        Reply::ResetAfter(bytes, reason) => {
            let mut send = respond.send_response(ok(), false).unwrap();
            send.send_data(bytes.into(), false).unwrap();
            send.send_reset(reason);
        }
        Reply::CutAfter(bytes) => {
            let mut send = respond.send_response(ok(), false).unwrap();
            send.send_data(bytes.into(), false).unwrap();
            cut.notify_one();
        }
        Reply::Refuse => respond.send_reset(Reason::REFUSED_STREAM),
    }
}
