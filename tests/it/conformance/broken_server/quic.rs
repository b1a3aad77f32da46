//! The server over QUIC.

use super::super::world::runtime;
use super::react::{Broken, Input, React};
use super::{DEADLINES, F};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use vortex_p2p::transport::tls::{Admission, Crypto, Identity, ServerIdentity, ServerTls};

impl Broken {
    pub(super) async fn quic(self, connection: quinn::Connection) {
        let closing = watch::Sender::new(false);
        if self.fault == F::OpensStream {
            let connection = connection.clone();
            tokio::spawn(async move {
                if let Ok(mut stream) = connection.open_uni().await {
                    let _ = stream.write_all(b"hello").await;
                }
            });
        }
        let mut closed = closing.subscribe();
        let (running, mut ended) = tokio::sync::mpsc::channel::<()>(1);
        loop {
            let (send, receive) = tokio::select! {
                accepted = connection.accept_bi() => match accepted {
                    Ok(accepted) => accepted,
                    Err(_) => return,
                },
                _ = closed.wait_for(|closed| *closed) => break,
            };
            let (this, closing, running) = (self.clone(), closing.clone(), running.clone());
            tokio::spawn(async move {
                let _running = running;
                this.stream(send, receive, &closing).await;
            });
        }
        drop(running);
        let mut others = Vec::new();
        loop {
            let (mut send, mut receive) = tokio::select! {
                accepted = connection.accept_bi() => match accepted {
                    Ok(accepted) => accepted,
                    Err(_) => return,
                },
                _ = ended.recv() => break,
            };
            if self.fault != F::LaterStreamsServed {
                let _ = send.reset(5u32.into());
                let _ = receive.stop(5u32.into());
            }
            others.push((send, receive));
        }
        if self.fault != F::CloseIgnored {
            let code: u32 = if self.fault == F::CloseCode5 { 5 } else { 0 };
            connection.close(code.into(), b"");
        }
        connection.closed().await;
    }

    async fn stream(
        self,
        mut send: quinn::SendStream,
        mut receive: quinn::RecvStream,
        closing: &watch::Sender<bool>,
    ) {
        let mut input = Input::default();
        let mut closed = closing.subscribe();
        let deadline = tokio::time::Instant::now() + self.deadline();
        let (bytes, stop) = loop {
            match self.react(&mut input) {
                React::Wait => {}
                React::Content(bytes) => break (bytes, Some(0u32)),
                React::NotFound(bytes) => {
                    if self.fault == F::NoFinAfterError {
                        let _ = send.write_all(&bytes).await;
                        return std::future::pending().await;
                    }
                    break (bytes, Some(0));
                }
                React::Refuse(bytes) | React::Broken(bytes) => break (bytes, Some(2)),
                React::Nothing => {
                    let _ = send.finish();
                    return;
                }
                React::Close(bytes) => {
                    let _ = send.write_all(&bytes).await;
                    let _ = send.finish();
                    if self.fault != F::CloseIgnored {
                        closing.send_replace(true);
                    } else {
                        return std::future::pending().await;
                    }
                    let _ = send.stopped().await;
                    return;
                }
            }
            let read = async {
                loop {
                    let chunk = receive.read_chunk(512, true).await?;
                    match chunk {
                        Some(chunk) => input.bytes.extend_from_slice(&chunk.bytes),
                        None => return Ok::<_, quinn::ReadError>(false),
                    }
                    if self.fault != F::WaitsForFin
                        || input.bytes.first_chunk::<2>().is_none_or(|head| head[1] > 0x06)
                        || input.bytes.len() < 74
                    {
                        return Ok(true);
                    }
                }
            };
            let read = tokio::time::timeout_at(deadline, read);
            let read = tokio::select! {
                read = read => Some(read),
                _ = closed.wait_for(|closed| *closed) => None,
            };
            let Some(read) = read else {
                let _ = send.reset(5u32.into());
                let _ = receive.stop(5u32.into());
                return;
            };
            match read {
                Ok(Ok(true)) => {}
                Ok(Ok(false)) if self.fault == F::WaitsForFin && input.bytes.len() >= 74 => {}
                Ok(Ok(false)) => {
                    let empty = input.bytes.is_empty() && self.fault == F::EmptyUnanswered;
                    if empty || self.fault == F::TruncatedUnanswered {
                        let _ = send.finish();
                        return;
                    }
                    break (self.error(0, 1), None);
                }
                Ok(Err(quinn::ReadError::Reset(code))) => {
                    if self.fault == F::ResetCodeMatters && code != 7u32.into() {
                        let _ = send.finish();
                        return;
                    }
                    if self.fault == F::ResetAnswered {
                        break (self.error(0, 1), None);
                    }
                    let _ = send.reset(7u32.into());
                    return;
                }
                Ok(Err(_)) => return,
                Err(_) if self.fault == F::HangsOnHalf => return std::future::pending().await,
                Err(_) => break (self.error(0, 1), Some(4)),
            }
        };
        let stop = match self.fault {
            F::NoStopSending => None,
            F::WrongStopCode => stop.map(|_| 0),
            _ => stop,
        };
        if let Some(code) = stop
            && (self.fault != F::SecondRequestAnswered || code != 0)
        {
            let _ = receive.stop(code.into());
        }
        let time = if self.fault == F::NoProgressDeadline { DEADLINES * 100 } else { DEADLINES };
        let mut rest: &[u8] = &bytes;
        while !rest.is_empty() {
            match tokio::time::timeout(time, send.write(rest)).await {
                Ok(Ok(count)) => rest = &rest[count..],
                Ok(Err(_)) => return,
                Err(_) => {
                    let code: u32 = if self.fault == F::WrongResetCodeWhenLate { 1 } else { 4 };
                    let _ = send.reset(code.into());
                    return;
                }
            }
        }
        if self.fault == F::SecondRequestAnswered && stop == Some(0) {
            loop {
                match self.react(&mut input) {
                    React::Content(bytes) | React::NotFound(bytes) => {
                        let _ = send.write_all(&bytes).await;
                    }
                    React::Wait => match receive.read_chunk(512, true).await {
                        Ok(Some(chunk)) => input.bytes.extend_from_slice(&chunk.bytes),
                        _ => break,
                    },
                    _ => break,
                }
            }
        }
        if self.fault == F::NoFin && bytes.get(1) != Some(&0xFF) {
            return std::future::pending().await;
        }
        let _ = send.finish();
        let _ = send.stopped().await;
    }

    pub(super) fn quic_config(&self) -> quinn::ServerConfig {
        let crypto = Crypto::new(runtime());
        let identity = if self.fault == F::OtherCertificateName {
            let key = rcgen::KeyPair::generate().unwrap();
            let parameters = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
            let certificate = parameters.self_signed(&key).unwrap();
            Identity::from_pem(&crypto, certificate.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap()
        } else {
            Identity::self_signed(&crypto).unwrap()
        };
        let tls = ServerTls::new(&crypto, &ServerIdentity::new(identity), &Admission::Anyone).unwrap();
        let mut tls = rustls::ServerConfig::clone(tls.config());
        if self.fault == F::DemandsAlpn {
            tls.alpn_protocols = vec![b"h3".to_vec()];
        }
        let tls = quinn::crypto::rustls::QuicServerConfig::try_from(tls).unwrap();
        let mut config = quinn::ServerConfig::with_crypto(Arc::new(tls));
        config.migration(self.fault != F::ForbidsMigration);
        let window: u32 = if self.fault == F::SmallWindows { 1 << 20 } else { 16 << 20 };
        let streams: u32 = if self.fault == F::FewStreams { 60 } else { 100 };
        let unidirectional: u32 = if self.fault == F::GrantsUnidirectional { 3 } else { 0 };
        let idle = Duration::from_secs(if self.fault == F::ShortIdleTimeout { 10 } else { 30 });
        let mut transport = quinn::TransportConfig::default();
        transport
            .stream_receive_window(window.into())
            .receive_window(window.into())
            .max_concurrent_bidi_streams(streams.into())
            .max_concurrent_uni_streams(unidirectional.into())
            .max_idle_timeout(Some(idle.try_into().unwrap()));
        config.transport_config(Arc::new(transport));
        config
    }
}
