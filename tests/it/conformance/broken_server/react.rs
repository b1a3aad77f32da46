//! What the server makes of the bytes that arrive, over whichever transport.

use super::super::world::endpoint;
use super::{DEADLINES, F, Fault};
use crate::memory::LOOPBACK;
use bytes::BytesMut;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use vortex_p2p::conformance::Transport;
use vortex_p2p::conformance::draft::{Draft, error};
use vortex_p2p::conformance::server::Fixture;
use vortex_p2p::transport::Network;
use vortex_p2p::wire::{Packet, PieceKind, Tag, TaskId};

#[derive(Clone)]
pub(super) struct Broken {
    pub(super) fault: Fault,
    pub(super) fixture: Arc<Fixture>,
}

/// What a server does after it has looked at what arrived.
pub(super) enum React {
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
pub(super) struct Input {
    pub(super) bytes: BytesMut,
    /// Bytes of a refused value that are still to come.
    pub(super) skip: usize,
}

impl Input {
    pub(super) fn is_idle(&self) -> bool {
        self.bytes.is_empty() && self.skip == 0
    }
}

impl Broken {
    pub(super) fn error(&self, id: u8, code: u8) -> Vec<u8> {
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

    pub(super) fn react(&self, input: &mut Input) -> React {
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

    pub(super) fn deadline(&self) -> Duration {
        if self.fault == F::EarlyDeadline { DEADLINES / 4 } else { DEADLINES }
    }

    /// Serves until the runtime ends.
    pub(super) async fn listen(self, network: &dyn Network, transport: Transport) -> SocketAddr {
        match transport {
            Transport::Tcp => {
                let mut listener = network.listen(LOOPBACK).await.unwrap();
                let address = listener.local_addr().unwrap();
                tokio::spawn(async move {
                    while let Ok((stream, _)) = listener.accept().await {
                        tokio::spawn(self.clone().tcp(stream));
                    }
                });
                address
            }
            Transport::Quic => {
                let endpoint = endpoint(network, Some(self.quic_config())).await;
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
