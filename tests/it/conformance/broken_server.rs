//! A small server with at most one fault, and the cases that have to catch each fault.

use super::world::{LOOPBACK, fixture, network, runtime};
use bytes::BytesMut;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use vortex_p2p::conformance::draft::{Draft, error};
use vortex_p2p::conformance::server::{Fixture, Target, check, list};
use vortex_p2p::conformance::{RunSettings, Transport, Verdict, Waits};
use vortex_p2p::session::Deadlines;
use vortex_p2p::transport::ByteStream;
use vortex_p2p::transport::tls::{Admission, Crypto, Identity, ServerIdentity, ServerTls};
use vortex_p2p::wire::{Packet, PieceKind, Tag, TaskId};

/// What a server does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    // Of answers with content.
    LittleEndian,
    LengthCountsContent,
    LengthCountsHeader,
    MetadataLengthCountsItself,
    HexCrc,
    WrongCrc,
    NoDigest,
    NoColon,
    OtherContent,
    ContentTooLong,
    WrongOffset,
    WrongNumber,
    WrongTag,
    WrongTrafficType,
    LongParentId,
    ParentIdNotUtf8,
    Appended,
    OtherId,
    // Of answers without content.
    CodeBehindMessage,
    ErrorCodeZero,
    LongMessage,
    MessageNotUtf8,
    PathInMessage,
    UnknownTaskIsInternal,
    UnknownPieceIsInvalid,
    OtherKindServed,
    UpperCaseServed,
    TwoAnswers,
    NoAnswerToUnknown,
    // Of reading.
    ReservedUnanswered,
    HangsOnTooLong,
    WaitsForRefusedValue,
    HangsOnHalf,
    EarlyDeadline,
    TruncatedUnanswered,
    ContentPacketUnanswered,
    // Of Close.
    CloseAnswered,
    CloseIgnored,
    CloseWithValueRefused,
    AnswersAfterClose,
    // Of TCP.
    ClosesAfterContent,
    ClosesAfterNotFound,
    ClosesAfterRefusal,
    DropsPipelined,
    ReadsOn,
    ValueNotSkipped,
    StaysOpenAfterTooLong,
    NoIdleTimeout,
    ErrorWhenIdle,
    EarlyIdleTimeout,
    NoLastWords,
    SecondErrorForSkipped,
    // Of QUIC.
    NoFin,
    NoFinAfterError,
    SecondRequestAnswered,
    WaitsForFin,
    NoStopSending,
    WrongStopCode,
    EmptyUnanswered,
    ResetAnswered,
    ResetCodeMatters,
    WrongResetCodeWhenLate,
    NoProgressDeadline,
    CloseCode5,
    LaterStreamsServed,
    DemandsAlpn,
    OtherCertificateName,
    GrantsUnidirectional,
    OpensStream,
    ForbidsMigration,
    ShortIdleTimeout,
    SmallWindows,
    FewStreams,
}

use Fault as F;

/// Every fault, the transports over which it is tried, and the requirements whose cases catch it. No other case may fail.
const FAULTS: &[(Fault, &[Transport], &[&str])] = {
    const BOTH: &[Transport] = &[Transport::Tcp, Transport::Quic];
    const TCP: &[Transport] = &[Transport::Tcp];
    const QUIC: &[Transport] = &[Transport::Quic];
    &[
        (F::None, BOTH, &[]),
        (F::LittleEndian, BOTH, &["VTX-FRM-003"]),
        (F::LengthCountsContent, TCP, &["VTX-FRM-004"]),
        (F::LengthCountsHeader, TCP, &["VTX-FRM-004"]),
        (F::MetadataLengthCountsItself, TCP, &["VTX-CNT-002"]),
        (F::HexCrc, BOTH, &["VTX-DIG-004"]),
        (F::WrongCrc, TCP, &["VTX-DIG-003"]),
        (F::NoDigest, TCP, &["VTX-DIG-002"]),
        (F::NoColon, TCP, &["VTX-DIG-001"]),
        (F::OtherContent, TCP, &["VTX-REQ-011"]),
        (F::ContentTooLong, BOTH, &["VTX-CNT-017"]),
        (F::WrongOffset, TCP, &["VTX-CNT-008"]),
        (F::WrongNumber, TCP, &["VTX-CNT-006"]),
        (F::WrongTag, TCP, &["VTX-TAG-004"]),
        (F::WrongTrafficType, TCP, &["VTX-CNT-014"]),
        (F::LongParentId, TCP, &["VTX-CNT-012"]),
        (F::ParentIdNotUtf8, TCP, &["VTX-FRM-005"]),
        (F::Appended, TCP, &["VTX-CNT-005"]),
        (F::OtherId, TCP, &["VTX-FRM-006"]),
        (F::CodeBehindMessage, TCP, &["VTX-ERR-001"]),
        (F::ErrorCodeZero, TCP, &["VTX-ERR-004"]),
        (F::LongMessage, TCP, &["VTX-ERR-003"]),
        (F::MessageNotUtf8, TCP, &["VTX-FRM-005"]),
        (F::PathInMessage, TCP, &["VTX-SEC-009"]),
        (F::UnknownTaskIsInternal, TCP, &["VTX-REQ-012"]),
        (F::UnknownPieceIsInvalid, TCP, &["VTX-REQ-004", "VTX-REQ-013"]),
        (F::OtherKindServed, TCP, &["VTX-REQ-014"]),
        (F::UpperCaseServed, TCP, &["VTX-REQ-003"]),
        (F::ReservedUnanswered, BOTH, &["VTX-ERR-008"]),
        (F::HangsOnTooLong, BOTH, &["VTX-FRM-011"]),
        (F::WaitsForRefusedValue, BOTH, &["VTX-FRM-013"]),
        (F::HangsOnHalf, BOTH, &["VTX-ERR-009"]),
        (F::EarlyDeadline, TCP, &["VTX-LIM-001"]),
        (F::ContentPacketUnanswered, TCP, &["VTX-ERR-008"]),
        (F::TruncatedUnanswered, TCP, &["VTX-FRM-014", "VTX-TCP-009"]),
        (F::TruncatedUnanswered, QUIC, &["VTX-FRM-014", "VTX-QUC-022"]),
        (F::TwoAnswers, QUIC, &["VTX-REQ-010"]),
        (F::NoAnswerToUnknown, QUIC, &["VTX-REQ-010", "VTX-REQ-012"]),
        (F::CloseAnswered, BOTH, &["VTX-CLS-003"]),
        (F::CloseIgnored, TCP, &["VTX-CLS-004", "VTX-CLS-005"]),
        (F::CloseIgnored, QUIC, &["VTX-CLS-004", "VTX-CLS-006"]),
        (F::CloseWithValueRefused, BOTH, &["VTX-CLS-002"]),
        (F::AnswersAfterClose, TCP, &["VTX-CLS-005"]),
        (F::ClosesAfterContent, TCP, &["VTX-CLS-004", "VTX-TCP-004", "VTX-TCP-011"]),
        (F::ClosesAfterNotFound, TCP, &["VTX-TCP-004"]),
        (F::ClosesAfterRefusal, TCP, &["VTX-TCP-006"]),
        (F::DropsPipelined, TCP, &["VTX-CLS-004", "VTX-TCP-002", "VTX-TCP-011"]),
        (F::ReadsOn, TCP, &["VTX-TCP-003"]),
        (F::ValueNotSkipped, TCP, &["VTX-TCP-006", "VTX-TCP-008"]),
        (F::StaysOpenAfterTooLong, TCP, &["VTX-TCP-007"]),
        (F::NoIdleTimeout, TCP, &["VTX-TCP-012"]),
        (F::ErrorWhenIdle, TCP, &["VTX-TCP-012"]),
        (F::EarlyIdleTimeout, TCP, &["VTX-LIM-001"]),
        (F::NoLastWords, TCP, &["VTX-TCP-013"]),
        (F::SecondErrorForSkipped, TCP, &["VTX-TCP-008"]),
        (F::NoProgressDeadline, TCP, &["VTX-LIM-002"]),
        (F::NoProgressDeadline, QUIC, &["VTX-LIM-002"]),
        (F::NoFin, QUIC, &["VTX-QUC-015"]),
        (F::NoFinAfterError, QUIC, &["VTX-QUC-015"]),
        (F::SecondRequestAnswered, QUIC, &["VTX-QUC-016"]),
        (F::WaitsForFin, QUIC, &["VTX-QUC-014"]),
        (F::NoStopSending, QUIC, &["VTX-QUC-021"]),
        (F::WrongStopCode, QUIC, &["VTX-QUC-021"]),
        (F::EmptyUnanswered, QUIC, &["VTX-QUC-022"]),
        (F::ResetAnswered, QUIC, &["VTX-QUC-024"]),
        (F::ResetCodeMatters, QUIC, &["VTX-QUC-035"]),
        (F::WrongResetCodeWhenLate, QUIC, &["VTX-QUC-023"]),
        (F::CloseCode5, QUIC, &["VTX-CLS-004"]),
        (F::LaterStreamsServed, QUIC, &["VTX-CLS-006"]),
        (F::DemandsAlpn, QUIC, &["VTX-QUC-003"]),
        (F::OtherCertificateName, QUIC, &["VTX-QUC-006"]),
        (F::GrantsUnidirectional, QUIC, &["VTX-QUC-019"]),
        (F::OpensStream, QUIC, &["VTX-QUC-018"]),
        (F::ForbidsMigration, QUIC, &["VTX-QUC-010", "VTX-QUC-011"]),
        (F::ShortIdleTimeout, QUIC, &["VTX-QUC-007"]),
        (F::SmallWindows, QUIC, &["VTX-QUC-009"]),
        (F::FewStreams, QUIC, &["VTX-QUC-020"]),
    ]
};

const DEADLINES: Duration = Duration::from_secs(8);

/// Faults that are shown by cases which wait for a deadline. The others are tried without those.
const SLOW: &[Fault] = &[
    F::None,
    F::HangsOnHalf,
    F::EarlyDeadline,
    F::NoIdleTimeout,
    F::ErrorWhenIdle,
    F::EarlyIdleTimeout,
    F::SecondErrorForSkipped,
    F::ValueNotSkipped,
    F::NoProgressDeadline,
    F::WrongResetCodeWhenLate,
];

#[derive(Clone)]
struct Broken {
    fault: Fault,
    fixture: Arc<Fixture>,
}

/// What a server does after it has looked at what arrived.
enum React {
    /// Waits for more.
    Wait,
    Content(Vec<u8>),
    NotFound(Vec<u8>),
    Refuse(Vec<u8>),
    /// Refuses, and can't find the next packet.
    Broken(Vec<u8>),
    /// Close, with a packet in answer that should not be.
    Close(Vec<u8>),
    Nothing,
}

/// What has arrived.
#[derive(Default)]
struct Input {
    bytes: BytesMut,
    /// Bytes of a refused value that are still to come.
    skip: usize,
}

impl Input {
    fn is_idle(&self) -> bool {
        self.bytes.is_empty() && self.skip == 0
    }
}

impl Broken {
    fn error(&self, id: u8, code: u8) -> Vec<u8> {
        match self.fault {
            F::CodeBehindMessage => {
                let mut packet = error(id, b'n', b"o such luck");
                packet.push(code);
                packet[5] += 1;
                packet
            }
            F::ErrorCodeZero => error(id, 0, b"no"),
            F::LongMessage => error(id, code, &[b'n'; 1025]),
            F::MessageNotUtf8 => error(id, code, b"na\xefve"),
            F::PathInMessage => error(id, code, b"open /var/lib/vortex/tasks: no such file"),
            F::OtherId => error(id.wrapping_add(1), code, b"no"),
            _ => error(id, code, b"no"),
        }
    }

    fn react(&self, input: &mut Input) -> React {
        let skipped = input.skip.min(input.bytes.len());
        let _ = input.bytes.split_to(skipped);
        input.skip -= skipped;
        if input.skip > 0 || input.bytes.len() < 6 {
            return React::Wait;
        }
        let (id, tag) = (input.bytes[0], input.bytes[1]);
        let declared = u32::from_be_bytes(input.bytes[2..6].try_into().unwrap());
        let length = declared as usize;
        if declared > 16_384 {
            if self.fault == F::HangsOnTooLong {
                return React::Wait;
            }
            input.bytes.clear();
            return React::Broken(self.error(id, 1));
        }
        if !Tag::from(tag).lengths().contains(declared) {
            if self.fault == F::WaitsForRefusedValue && input.bytes.len() < 6 + length {
                return React::Wait;
            }
            let _ = input.bytes.split_to(6);
            input.skip = if self.fault == F::ValueNotSkipped { 0 } else { length };
            return React::Refuse(self.error(id, 1));
        }
        if input.bytes.len() < 6 + length {
            return React::Wait;
        }
        let packet = input.bytes.split_to(6 + length);
        match tag {
            0x00 | 0x02 | 0x04 | 0x06 => self.download(id, tag, &packet),
            0x01 | 0x03 | 0x05 | 0x07
                if self.fault == F::ContentPacketUnanswered && Packet::decode(&packet).is_ok() =>
            {
                React::Nothing
            }
            0x08..=0xFD if self.fault == F::ReservedUnanswered => React::Nothing,
            0xFE if self.fault == F::CloseWithValueRefused && length > 0 => React::Refuse(self.error(id, 1)),
            0xFE if self.fault == F::CloseAnswered => React::Close(self.error(id, 1)),
            0xFE => React::Close(Vec::new()),
            _ => React::Refuse(self.error(id, 1)),
        }
    }

    fn download(&self, id: u8, tag: u8, packet: &[u8]) -> React {
        let mut task: [u8; 64] = packet[6..70].try_into().unwrap();
        if self.fault == F::UpperCaseServed {
            task.make_ascii_lowercase();
        }
        let Ok(task) = TaskId::from_bytes(&task) else { return React::Refuse(self.error(id, 1)) };
        let number = u32::from_be_bytes(packet[70..74].try_into().unwrap());
        let kind = PieceKind::ALL[usize::from(tag / 2)];
        let key = self.fixture.key;
        let not_found = |code| React::NotFound(self.error(id, code));
        if task != key.id || (kind != key.kind && self.fault != F::OtherKindServed) {
            return match self.fault {
                F::UnknownTaskIsInternal if task != key.id => not_found(3),
                F::NoAnswerToUnknown if task != key.id => React::Nothing,
                _ => not_found(2),
            };
        }
        let Some(span) = self.fixture.division.unwrap().piece(number) else {
            return not_found(if self.fault == F::UnknownPieceIsInvalid { 1 } else { 2 });
        };
        let whole = self.fixture.content.as_ref().unwrap();
        let start = span.offset as usize;
        let piece = &whole[start..start + span.length.get() as usize];
        React::Content(self.content(Draft::new(id, key.piece(number), span.offset, piece)))
    }

    fn content(&self, mut draft: Draft) -> Vec<u8> {
        let sum = crc32fast::hash(&draft.content);
        let value = draft.packet().len() as u32 - 6;
        match self.fault {
            F::LittleEndian => draft.little_endian = true,
            F::LengthCountsContent => draft.length = Some(value + draft.content.len() as u32),
            F::LengthCountsHeader => draft.length = Some(value + 6),
            F::MetadataLengthCountsItself => draft.metadata_length = Some(value),
            F::HexCrc => draft.digest = format!("crc32:{sum:08x}").into(),
            F::WrongCrc => draft.digest = format!("crc32:{}", !sum).into(),
            F::NoDigest => draft.digest.clear(),
            F::NoColon => draft.digest = format!("crc32-{sum}").into(),
            F::OtherContent => {
                draft.content[0] ^= 1;
                draft.digest = format!("crc32:{}", crc32fast::hash(&draft.content)).into();
            }
            F::ContentTooLong => draft.trailing = vec![0; 5],
            F::WrongOffset => draft.offset += 1,
            F::WrongNumber => draft.number += 1,
            F::WrongTag => draft.tag = 0x07,
            F::WrongTrafficType => draft.traffic_type = 0,
            F::LongParentId => draft.parent_id = vec![b'p'; 1025],
            F::ParentIdNotUtf8 => draft.parent_id = vec![0xFF],
            F::Appended => draft.appended = vec![0; 4],
            F::OtherId => draft.id = draft.id.wrapping_add(1),
            F::TwoAnswers => draft.trailing = error(draft.id, 3, b"once more"),
            _ => {}
        }
        draft.encode()
    }

    fn deadline(&self) -> Duration {
        if self.fault == F::EarlyDeadline { DEADLINES / 4 } else { DEADLINES }
    }

    // TCP.

    async fn tcp(self, mut stream: Box<dyn ByteStream>) {
        let mut input = Input::default();
        loop {
            let reaction = self.react(&mut input);
            let asked = matches!(reaction, React::Content(_) | React::NotFound(_));
            let (bytes, ends) = match reaction {
                React::Wait => {
                    let (time, idle) = match input.is_idle() {
                        true if self.fault == F::NoIdleTimeout => (DEADLINES * 100, true),
                        true if self.fault == F::EarlyIdleTimeout => (DEADLINES / 4, true),
                        true => (DEADLINES, true),
                        false => (self.deadline(), false),
                    };
                    input.bytes.reserve(8 << 10);
                    match tokio::time::timeout(time, stream.read_buf(&mut input.bytes)).await {
                        Ok(Ok(0)) if input.is_idle() || self.fault == F::TruncatedUnanswered => return,
                        Ok(Ok(0)) => (self.error(0, 1), true),
                        Ok(Ok(_)) => continue,
                        Ok(Err(_)) => return,
                        Err(_) if idle && self.fault == F::ErrorWhenIdle => (self.error(0, 1), true),
                        Err(_) if idle => return,
                        Err(_) if input.skip > 0 && self.fault != F::SecondErrorForSkipped => return,
                        Err(_) if self.fault == F::HangsOnHalf => {
                            tokio::time::sleep(DEADLINES * 100).await;
                            return;
                        }
                        Err(_) => (self.error(0, 1), true),
                    }
                }
                React::Content(bytes) => (bytes, self.fault == F::ClosesAfterContent),
                React::NotFound(bytes) => (bytes, self.fault == F::ClosesAfterNotFound),
                React::Refuse(bytes) => (bytes, self.fault == F::ClosesAfterRefusal),
                React::Broken(bytes) => (bytes, self.fault != F::StaysOpenAfterTooLong),
                React::Nothing => continue,
                React::Close(_) if self.fault == F::CloseIgnored || self.fault == F::AnswersAfterClose => {
                    if self.fault == F::AnswersAfterClose && input.is_idle() {
                        return;
                    }
                    continue;
                }
                React::Close(bytes) => (bytes, true),
            };
            if self.fault == F::DropsPipelined && asked {
                while input.bytes.len() >= 74 && input.bytes[1] <= 0x06 {
                    let _ = input.bytes.split_to(74);
                }
            }
            if !self.write(&mut stream, &bytes, &mut input).await {
                return;
            }
            if ends {
                if self.fault == F::NoLastWords {
                    return;
                }
                let _ = stream.shutdown().await;
                let mut sink = BytesMut::new();
                let discard = async {
                    while matches!(stream.read_buf(&mut sink).await, Ok(count) if count > 0) {
                        sink.clear();
                    }
                };
                let _ = tokio::time::timeout(Duration::from_secs(1), discard).await;
                return;
            }
        }
    }

    /// Writes as far as the client takes something now and then; whether it took everything.
    async fn write(&self, stream: &mut Box<dyn ByteStream>, mut bytes: &[u8], input: &mut Input) -> bool {
        let time = if self.fault == F::NoProgressDeadline { DEADLINES * 100 } else { DEADLINES };
        let (mut open, mut late) = (true, tokio::time::Instant::now() + DEADLINES);
        while !bytes.is_empty() {
            if self.fault == F::ReadsOn {
                // Takes all requests into memory, whether or not the answers are taken.
                let (mut read, mut write) = tokio::io::split(&mut *stream);
                let written = tokio::select! {
                    written = write.write(bytes) => written,
                    read = read.read_buf(&mut input.bytes), if open => {
                        open = matches!(read, Ok(count) if count > 0);
                        Ok(0)
                    }
                    () = tokio::time::sleep_until(late) => return false,
                };
                match written {
                    Ok(0) => {}
                    Ok(count) => {
                        bytes = &bytes[count..];
                        late = tokio::time::Instant::now() + DEADLINES;
                    }
                    Err(_) => return false,
                }
                continue;
            }
            match tokio::time::timeout(time, stream.write(bytes)).await {
                Ok(Ok(count)) => bytes = &bytes[count..],
                _ => return false,
            }
        }
        true
    }

    // QUIC.

    async fn quic(self, connection: quinn::Connection) {
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

    fn quic_config(&self) -> quinn::ServerConfig {
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

    /// Serves until the runtime ends.
    async fn listen(self, transport: Transport) -> SocketAddr {
        match transport {
            Transport::Tcp => {
                let mut listener = network().listen(LOOPBACK).await.unwrap();
                let address = listener.local_addr().unwrap();
                tokio::spawn(async move {
                    while let Ok((stream, _)) = listener.accept().await {
                        tokio::spawn(self.clone().tcp(stream));
                    }
                });
                address
            }
            Transport::Quic => {
                let endpoint = quinn::Endpoint::server(self.quic_config(), LOOPBACK).unwrap();
                let address = endpoint.local_addr().unwrap();
                tokio::spawn(async move {
                    while let Some(incoming) = endpoint.accept().await {
                        let this = self.clone();
                        tokio::spawn(async move {
                            if let Ok(connection) = incoming.await {
                                this.quic(connection).await;
                            }
                        });
                    }
                });
                address
            }
        }
    }
}

/// What a run against a server with `fault` shows: the requirements whose cases fail, and which those are.
async fn caught(fault: Fault, transport: Transport) -> (Vec<&'static str>, Vec<String>) {
    let fixture = fixture();
    let broken = Broken { fault, fixture: Arc::new(fixture.clone()) };
    let address = broken.listen(transport).await;
    let deadlines =
        Deadlines { request: DEADLINES, progress: DEADLINES, idle: DEADLINES, ..Deadlines::default() };
    let waits = Waits { soon: Duration::from_secs(6), quiet: Duration::from_millis(300) };
    let target = Target { transport, address, fixture, deadlines, waits };
    let select = list().into_iter().filter(|case| !case.slow || SLOW.contains(&fault));
    let select = select.map(|case| case.id.to_owned()).collect();
    let settings = RunSettings { strict: true, select, concurrency: 16, ..RunSettings::default() };
    let reports = check(runtime(), network(), target, &settings).await;
    let failed = reports.iter().filter(|report| report.verdict == Verdict::Fail);
    let mut requirements: Vec<&str> =
        failed.clone().map(|report| report.id.split('/').next().unwrap()).collect();
    requirements.dedup();
    requirements.sort_unstable();
    requirements.dedup();
    (requirements, failed.map(|report| format!("{}: {}", report.id, report.message)).collect())
}

async fn each_is_caught(transport: Transport) {
    use futures_util::stream::{self, StreamExt as _};
    let faults = FAULTS.iter().filter(|(_, transports, _)| transports.contains(&transport));
    // Side by side, because most of the time is spent on waiting.
    let wrong: Vec<String> = stream::iter(faults)
        .map(|(fault, _, expected)| async move {
            let (requirements, failures) = caught(*fault, transport).await;
            (requirements != *expected)
                .then(|| format!("{fault:?}: expected {expected:?}, got {failures:#?}"))
        })
        .buffer_unordered(6)
        .filter_map(|wrong| async { wrong })
        .collect()
        .await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_fault_of_a_tcp_server_is_caught_by_the_case_that_names_it() {
    each_is_caught(Transport::Tcp).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_fault_of_a_quic_server_is_caught_by_the_case_that_names_it() {
    each_is_caught(Transport::Quic).await;
}
