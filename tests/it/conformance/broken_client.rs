//! A small client with at most one fault, and the cases that have to catch each fault.

use super::world::{Planted, each_is_caught, endpoint, network, runtime};
use crate::memory::LOOPBACK;
use bytes::{Bytes, BytesMut};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use vortex_p2p::conformance::client::{Driver, Job, Outcome, Target, check};
use vortex_p2p::conformance::{CaseReport, RunSettings, Transport, Waits};
use vortex_p2p::runtime::BoxFuture;
use vortex_p2p::session::Deadlines;
use vortex_p2p::transport::tls::{ClientTls, Crypto, Trust};
use vortex_p2p::transport::{ByteStream, Network};
use vortex_p2p::wire::{Algorithm, Digest, DigestClaim, DigestError, Message, Metadata, Packet, PieceKind};

/// What a client does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    // Of requests.
    LittleEndian,
    LengthCountsHeader,
    UpperCaseTask,
    OtherTag,
    ReservedTag,
    // Of what is taken.
    TrustsOffset,
    NoVerification,
    TakesEarlyEnd,
    TakesOtherNumber,
    TakesOtherKind,
    TakesOtherLength,
    TakesEmptyDigest,
    TakesUnknownAlgorithm,
    TakesCloseForEmptyPiece,
    // Of what is not taken.
    WantsItsId,
    WantsNoAppended,
    WantsDatesAfter1970,
    DecimalOnly,
    HexadecimalOnly,
    LowerCaseOnly,
    // Of TCP.
    NoRetry,
    KeepsBroken,
    KeepsAfterClose,
    ClosesAfterError,
    // Of both.
    NoDeadline,
    // Of QUIC.
    NoFin,
    RequestTwice,
    OffersAlpn,
    OtherName,
    GrantsStreams,
    OpensStream,
    ShortIdleTimeout,
    SmallWindows,
    NoStopSending,
    WrongStopCode,
    StopIsTheEnd,
    DoesNotWaitForFin,
    TakesResetForFin,
    TakesTrailing,
    NoConnectDeadline,
}

use Fault as F;

/// Every fault, the transports over which it is tried, and the requirements whose cases catch it. No other case may fail.
const FAULTS: &[Planted<Fault>] = {
    const BOTH: &[Transport] = &[Transport::Tcp, Transport::Quic];
    const TCP: &[Transport] = &[Transport::Tcp];
    const QUIC: &[Transport] = &[Transport::Quic];
    &[
        (F::None, BOTH, &[]),
        (F::LittleEndian, TCP, &["VTX-FRM-002", "VTX-FRM-003"]),
        (F::LengthCountsHeader, TCP, &["VTX-FRM-002", "VTX-FRM-004"]),
        (F::UpperCaseTask, BOTH, &["VTX-REQ-002"]),
        (F::OtherTag, TCP, &["VTX-FRM-002", "VTX-TAG-001"]),
        (F::ReservedTag, BOTH, &["VTX-TAG-003"]),
        (F::TrustsOffset, BOTH, &["VTX-CNT-009"]),
        (F::NoVerification, BOTH, &["VTX-DIG-014", "VTX-DIG-015"]),
        (F::TakesEarlyEnd, BOTH, &["VTX-CNT-019"]),
        (F::TakesOtherNumber, TCP, &["VTX-CNT-007", "VTX-TCP-018"]),
        (F::TakesOtherNumber, QUIC, &["VTX-CNT-007", "VTX-QUC-032"]),
        (F::TakesOtherKind, TCP, &["VTX-CNT-020"]),
        (F::TakesOtherKind, QUIC, &["VTX-CNT-020", "VTX-QUC-032"]),
        (F::TakesOtherLength, TCP, &["VTX-CNT-011"]),
        (F::TakesEmptyDigest, BOTH, &["VTX-DIG-011"]),
        (F::TakesUnknownAlgorithm, BOTH, &["VTX-DIG-012"]),
        (F::TakesCloseForEmptyPiece, TCP, &["VTX-CLS-002", "VTX-CLS-007", "VTX-CLS-008"]),
        (F::WantsItsId, BOTH, &["VTX-FRM-007"]),
        (F::WantsNoAppended, BOTH, &["VTX-CNT-004"]),
        (F::WantsDatesAfter1970, TCP, &["VTX-CNT-016"]),
        (F::DecimalOnly, TCP, &["VTX-DIG-007", "VTX-DIG-008"]),
        (F::HexadecimalOnly, TCP, &["VTX-DIG-006", "VTX-DIG-008"]),
        (F::LowerCaseOnly, TCP, &["VTX-DIG-009"]),
        (F::NoRetry, TCP, &["VTX-TCP-017"]),
        (F::KeepsBroken, TCP, &["VTX-CLS-008", "VTX-TCP-018"]),
        (F::KeepsAfterClose, TCP, &["VTX-CLS-008", "VTX-CLS-009", "VTX-TCP-020"]),
        (F::KeepsAfterClose, QUIC, &["VTX-CLS-008"]),
        (F::ClosesAfterError, BOTH, &["VTX-ERR-006"]),
        (F::NoDeadline, BOTH, &["VTX-LIM-003"]),
        (F::NoFin, QUIC, &["VTX-QUC-013"]),
        (F::RequestTwice, QUIC, &["VTX-QUC-012"]),
        (F::OffersAlpn, QUIC, &["VTX-QUC-002"]),
        (F::OtherName, QUIC, &["VTX-QUC-004"]),
        (F::GrantsStreams, QUIC, &["VTX-QUC-019"]),
        (F::OpensStream, QUIC, &["VTX-QUC-018"]),
        (F::ShortIdleTimeout, QUIC, &["VTX-QUC-007"]),
        (F::SmallWindows, QUIC, &["VTX-QUC-009"]),
        (F::NoStopSending, QUIC, &["VTX-QUC-032", "VTX-QUC-033"]),
        (F::WrongStopCode, QUIC, &["VTX-QUC-032", "VTX-QUC-033"]),
        (F::StopIsTheEnd, QUIC, &["VTX-QUC-017"]),
        (F::DoesNotWaitForFin, QUIC, &["VTX-QUC-028", "VTX-QUC-029", "VTX-QUC-032"]),
        (F::TakesResetForFin, QUIC, &["VTX-QUC-028"]),
        (F::TakesTrailing, QUIC, &["VTX-QUC-029", "VTX-QUC-032"]),
        (F::NoConnectDeadline, QUIC, &["VTX-LIM-004"]),
    ]
};

const DEADLINE: Duration = Duration::from_secs(4);

#[derive(Clone)]
struct Broken {
    fault: Fault,
    network: Arc<dyn Network>,
}

/// How a request failed, and with which code its stream is to be stopped.
struct Failed {
    why: String,
    code: u32,
    /// Whether the connection can be used for another request (TCP).
    keeps: bool,
    /// Whether nothing came at all.
    empty: bool,
}

fn failed<T>(why: impl std::fmt::Display, code: u32) -> Result<T, Failed> {
    Err(Failed { why: why.to_string(), code, keeps: false, empty: false })
}

/// Where an answer comes from.
enum From {
    Tcp(Box<dyn ByteStream>),
    Quic(quinn::RecvStream),
}

/// What is read of an answer.
struct Reading {
    from: From,
    bytes: BytesMut,
    ended: bool,
}

impl Reading {
    /// Whether `count` bytes are there; `false` at the end.
    async fn fill(&mut self, fault: Fault, count: usize) -> Result<bool, Failed> {
        while self.bytes.len() < count && !self.ended {
            match &mut self.from {
                From::Tcp(stream) => match stream.read_buf(&mut self.bytes).await {
                    Ok(read) => self.ended = read == 0,
                    Err(error) => return failed(error, 0),
                },
                From::Quic(stream) => match stream.read_chunk(1 << 16, true).await {
                    Ok(Some(chunk)) => self.bytes.extend_from_slice(&chunk.bytes),
                    Ok(None) => self.ended = true,
                    Err(quinn::ReadError::Reset(_)) if fault == F::TakesResetForFin => self.ended = true,
                    Err(error) => return failed(error, 0),
                },
            }
        }
        Ok(self.bytes.len() >= count)
    }
}

impl Broken {
    fn request(&self, job: &Job, number: u32) -> Vec<u8> {
        let mut request = job.key.piece(number).encode(0x77).to_vec();
        match self.fault {
            F::LittleEndian => {
                request[2..6].reverse();
                request[70..74].reverse();
            }
            F::LengthCountsHeader => request[5] = 74,
            F::UpperCaseTask => request[6..70].make_ascii_uppercase(),
            F::OtherTag => request[1] = 0x02,
            _ => {}
        }
        request
    }

    /// Reads an answer: offset and content.
    async fn answer(&self, reading: &mut Reading, job: &Job, number: u32) -> Result<(u64, Bytes), Failed> {
        if !reading.fill(self.fault, 6).await? {
            let empty = reading.bytes.is_empty();
            return Err(Failed { why: "the answer ends".to_owned(), code: 2, keeps: false, empty });
        }
        let length = u32::from_be_bytes(reading.bytes[2..6].try_into().unwrap()) as usize;
        if length > 16_384 {
            return failed("too long", 2);
        }
        reading.fill(self.fault, 6 + length).await?;
        let bytes = reading.bytes.clone().freeze();
        let (packet, rest) = match Packet::decode(&bytes) {
            Ok(decoded) => decoded,
            Err(error) => return failed(error, 2),
        };
        let taken = bytes.len() - rest.len();
        let _ = reading.bytes.split_to(taken);
        let metadata = match packet.message {
            Message::Content(kind, metadata) => {
                if kind != PieceKind::Piece && self.fault != F::TakesOtherKind {
                    return failed("another kind", 2);
                }
                metadata
            }
            Message::Error(error) => {
                let why = format!("Error {}", error.code);
                return Err(Failed { why, code: 0, keeps: self.fault != F::ClosesAfterError, empty: false });
            }
            Message::Close if self.fault == F::TakesCloseForEmptyPiece => return Ok((0, Bytes::new())),
            Message::Close if self.fault == F::KeepsAfterClose => {
                return Err(Failed { why: "Close".to_owned(), code: 0, keeps: true, empty: false });
            }
            _ => return failed("no answer", 2),
        };
        let expected = job.division.piece(number).unwrap().length;
        if metadata.number != number && self.fault != F::TakesOtherNumber {
            return failed("another number", 2);
        }
        if metadata.length != expected && self.fault != F::TakesOtherLength {
            return failed("another length", 2);
        }
        if packet.id != 0x77 && self.fault == F::WantsItsId {
            return failed("another id", 2);
        }
        if metadata.created_at < 0 && self.fault == F::WantsDatesAfter1970 {
            return failed("a date before 1970", 2);
        }
        let text = metadata.digest.as_str().len() + metadata.parent_id.as_str().len();
        if taken != 6 + 49 + text && self.fault == F::WantsNoAppended {
            return failed("bytes after created at", 2);
        }
        match DigestClaim::parse(metadata.digest.as_str()) {
            Err(DigestError::Empty) if self.fault == F::TakesEmptyDigest => {}
            Err(DigestError::UnknownAlgorithm) if self.fault == F::TakesUnknownAlgorithm => {}
            Err(error) => return failed(error, 2),
            Ok(_) => {}
        }
        let length = metadata.length.get() as usize;
        let whole = reading.fill(self.fault, length).await?;
        if !whole && self.fault != F::TakesEarlyEnd {
            return failed("the content ends", 2);
        }
        let content = reading.bytes.split_to(length.min(reading.bytes.len())).freeze();
        if matches!(reading.from, From::Quic(_)) && self.fault != F::DoesNotWaitForFin {
            reading.fill(self.fault, 1).await?;
            if !reading.bytes.is_empty() && self.fault != F::TakesTrailing {
                return failed("bytes after the content", 2);
            }
        }
        if whole || self.fault != F::TakesEarlyEnd {
            self.verify(&metadata, &content)?;
        }
        Ok((metadata.offset, content))
    }

    fn verify(&self, metadata: &Metadata<'_>, content: &[u8]) -> Result<(), Failed> {
        let text = metadata.digest.as_str();
        let mismatch = |matches: bool| if matches { Ok(()) } else { failed("another digest", 6) };
        let sum = crc32fast::hash(content);
        match DigestClaim::parse(text) {
            Ok(_) if self.fault == F::NoVerification => Ok(()),
            Ok(DigestClaim::Crc32 { .. }) if self.fault == F::DecimalOnly => {
                mismatch(text["crc32:".len()..].parse() == Ok(sum))
            }
            Ok(DigestClaim::Crc32 { .. }) if self.fault == F::HexadecimalOnly && text.len() == 14 => {
                mismatch(u32::from_str_radix(&text["crc32:".len()..], 16) == Ok(sum))
            }
            Ok(DigestClaim::Crc32 { .. })
                if self.fault == F::HexadecimalOnly && text.starts_with("crc32:0") =>
            {
                failed("no hexadecimal", 2)
            }
            Ok(DigestClaim::Sha256(_)) if self.fault == F::LowerCaseOnly => {
                mismatch(Digest::of(Algorithm::Sha256, content).to_string() == text)
            }
            Ok(claim) => mismatch(claim.matches(&Digest::of(claim.algorithm(), content))),
            // What is not wanted was refused before.
            Err(_) => Ok(()),
        }
    }

    /// An answer by the deadline.
    async fn timely(&self, reading: &mut Reading, job: &Job, number: u32) -> Result<(u64, Bytes), Failed> {
        let answer = self.answer(reading, job, number);
        if self.fault == F::NoDeadline {
            return answer.await;
        }
        match tokio::time::timeout(DEADLINE, answer).await {
            Ok(answer) => answer,
            Err(_) => failed("nothing by the deadline", 4),
        }
    }

    async fn tcp(
        &self,
        job: &Job,
        number: u32,
        kept: &mut Option<Box<dyn ByteStream>>,
    ) -> Result<(u64, Bytes), Failed> {
        let peer = job.peers[0];
        let mut used = kept.is_some();
        loop {
            let mut stream = match kept.take() {
                Some(stream) => stream,
                None => self.network.connect(peer).await.unwrap(),
            };
            if used && self.fault != F::KeepsAfterClose {
                // What nobody asked for shows before the connection is used again.
                let stray = tokio::time::timeout(Duration::from_millis(50), stream.read_u8()).await;
                if matches!(stray, Ok(Ok(_))) {
                    used = false;
                    continue;
                }
            }
            if self.fault == F::ReservedTag {
                // On a connection of its own, where it disturbs nothing else.
                let mut other = self.network.connect(peer).await.unwrap();
                let _ = other.write_all(&[0, 0x42, 0, 0, 0, 0]).await;
                let _ = other.read_u8().await;
            }
            let _ = stream.write_all(&self.request(job, number)).await;
            let mut reading = Reading { from: From::Tcp(stream), bytes: BytesMut::new(), ended: false };
            let answer = self.timely(&mut reading, job, number).await;
            let From::Tcp(stream) = reading.from else { unreachable!() };
            let clean = reading.bytes.is_empty() || self.fault == F::KeepsAfterClose;
            match answer {
                Err(failed) if failed.empty && used && self.fault != F::NoRetry => {
                    used = false;
                    continue;
                }
                Err(failed) => {
                    if failed.keeps || failed.code == 6 || self.fault == F::KeepsBroken {
                        *kept = Some(stream);
                    }
                    return Err(failed);
                }
                Ok(answer) => {
                    if clean && !reading.ended {
                        *kept = Some(stream);
                    }
                    return Ok(answer);
                }
            }
        }
    }

    async fn connect(&self, peer: SocketAddr) -> Result<quinn::Connection, String> {
        let crypto = Crypto::new(runtime());
        let tls = ClientTls::new(&crypto, &Trust::Insecure, None).unwrap();
        let mut tls = tls.for_peer(peer);
        if self.fault == F::OffersAlpn {
            tls.alpn_protocols = vec![b"vortex".to_vec()];
        }
        let tls = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
        let mut config = quinn::ClientConfig::new(Arc::new(tls));
        let streams: u32 = if self.fault == F::GrantsStreams { 100 } else { 0 };
        let window: u32 = if self.fault == F::SmallWindows { 1 << 20 } else { 16 << 20 };
        let idle = Duration::from_secs(if self.fault == F::ShortIdleTimeout { 20 } else { 30 });
        let mut transport = quinn::TransportConfig::default();
        transport
            .max_concurrent_bidi_streams(streams.into())
            .max_concurrent_uni_streams(streams.into())
            .stream_receive_window(window.into())
            .receive_window(window.into())
            .max_idle_timeout(Some(idle.try_into().unwrap()));
        config.transport_config(Arc::new(transport));
        let endpoint = endpoint(&*self.network, None).await;
        let name = if self.fault == F::OtherName { "vortex.example" } else { "d7y" };
        let connecting = endpoint.connect_with(config, peer, name).unwrap();
        let connected = match self.fault {
            F::NoConnectDeadline => Ok(connecting.await),
            _ => tokio::time::timeout(DEADLINE, connecting).await,
        };
        let connection = connected.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        if self.fault == F::OpensStream {
            let mut stream = connection.open_uni().await.map_err(|error| error.to_string())?;
            let _ = stream.write_all(b"hello").await;
            let _ = stream.finish();
        }
        if self.fault == F::ReservedTag {
            let (mut send, mut receive) = connection.open_bi().await.map_err(|error| error.to_string())?;
            let _ = send.write_all(&[0, 0x42, 0, 0, 0, 0]).await;
            let _ = send.finish();
            let _ = receive.read_to_end(100).await;
        }
        Ok(connection)
    }

    async fn quic(
        &self,
        job: &Job,
        number: u32,
        kept: &mut Option<quinn::Connection>,
    ) -> Result<(u64, Bytes), Failed> {
        let connection = match kept.take() {
            Some(connection) => connection,
            None => self.connect(job.peers[0]).await.or_else(|why| failed(why, 0))?,
        };
        let (mut send, receive) = connection.open_bi().await.or_else(|error| failed(error, 0))?;
        let request = self.request(job, number);
        let sent = send.write_all(&request).await;
        if sent.is_err() && self.fault == F::StopIsTheEnd {
            return failed("stopped", 0);
        }
        if self.fault == F::RequestTwice {
            let _ = send.write_all(&request).await;
        }
        if self.fault != F::NoFin {
            let _ = send.finish();
        }
        let mut reading = Reading { from: From::Quic(receive), bytes: BytesMut::new(), ended: false };
        let answer = self.timely(&mut reading, job, number).await;
        let From::Quic(mut receive) = reading.from else { unreachable!() };
        match answer {
            Err(failed) => {
                if self.fault != F::NoStopSending {
                    let code = if self.fault == F::WrongStopCode { 9 } else { failed.code };
                    let _ = receive.stop(code.into());
                } else {
                    // Dropped, the stream would be stopped with code 0.
                    std::mem::forget(receive);
                }
                let closed = failed.why == "no answer" && self.fault != F::KeepsAfterClose;
                if !closed && (failed.why != "Error internal" || self.fault != F::ClosesAfterError) {
                    *kept = Some(connection);
                }
                Err(failed)
            }
            Ok(answer) => {
                *kept = Some(connection);
                Ok(answer)
            }
        }
    }

    /// Fetches every piece, one after another, and goes on after a failure.
    async fn fetch_all(&self, job: Job) -> Outcome {
        if job.peers.len() > 1 {
            return Outcome::Unable("asks one peer only".to_owned());
        }
        let mut file = vec![0; job.division.length() as usize];
        let (mut tcp, mut quic, mut why) = (None, None, None);
        for number in 0..job.division.pieces() as u32 {
            let piece = match job.transport {
                Transport::Tcp => self.tcp(&job, number, &mut tcp).await,
                Transport::Quic => self.quic(&job, number, &mut quic).await,
            };
            match piece {
                Ok((claimed, content)) => {
                    let derived = job.division.piece(number).unwrap().offset;
                    let offset = if self.fault == F::TrustsOffset { claimed } else { derived };
                    let offset = usize::try_from(offset).unwrap_or(usize::MAX).min(file.len());
                    let room = &mut file[offset..];
                    let count = room.len().min(content.len());
                    room[..count].copy_from_slice(&content[..count]);
                }
                Err(failed) => why = why.or(Some(failed.why)),
            }
        }
        why.map_or(Outcome::Done(file.into()), Outcome::Failed)
    }
}

impl Driver for Broken {
    fn fetch(&self, job: Job) -> BoxFuture<'static, Outcome> {
        let this = self.clone();
        Box::pin(async move { this.fetch_all(job).await })
    }
}

async fn run(fault: Fault, transport: Transport) -> Vec<CaseReport> {
    let network = network();
    let deadlines = Deadlines { first_byte: DEADLINE, connect: DEADLINE, ..Deadlines::default() };
    let driver = Arc::new(Broken { fault, network: network.clone() });
    let target = Target { transport, listen: LOOPBACK, deadlines, waits: Waits::default(), driver };
    let settings = RunSettings { strict: true, concurrency: 16, ..RunSettings::default() };
    check(runtime(), network, target, &settings).await
}

#[tokio::test(start_paused = true)]
async fn each_fault_of_a_tcp_client_is_caught_by_the_case_that_names_it() {
    each_is_caught(FAULTS, Transport::Tcp, run).await;
}

#[tokio::test(start_paused = true)]
async fn each_fault_of_a_quic_client_is_caught_by_the_case_that_names_it() {
    each_is_caught(FAULTS, Transport::Quic, run).await;
}
