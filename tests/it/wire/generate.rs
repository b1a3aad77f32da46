//! What the property tests are fed with.

use super::build::{self, RawContent};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use vortex_p2p::wire::{
    Bounded, Download, ErrorCode, ErrorMessage, Message, Metadata, Packet, PieceKind, PieceLength,
    ReservedTag, TaskId, TrafficType, limits,
};

/// A packet that owns what it says, so that it can be generated and shown.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Owned {
    Download { id: u8, kind: PieceKind, task_id: String, number: u32 },
    Content { kind: PieceKind, raw: RawContent },
    Reserved { id: u8, tag: u8, value: Vec<u8> },
    Close { id: u8 },
    Error { id: u8, code: u8, message: String },
}

impl Owned {
    /// As the codec has it.
    pub(crate) fn packet(&self) -> Packet<'_> {
        match self {
            Self::Download { id, kind, task_id, number } => {
                let task_id: TaskId = task_id.parse().unwrap();
                let download = Download { kind: *kind, task_id, number: *number };
                Packet { id: *id, message: Message::Download(download) }
            }
            Self::Content { kind, raw } => {
                let metadata = Metadata {
                    number: raw.number,
                    offset: raw.offset,
                    length: PieceLength::try_from(raw.piece_length).unwrap(),
                    digest: Bounded::new(std::str::from_utf8(&raw.digest).unwrap()).unwrap(),
                    parent_id: Bounded::new(std::str::from_utf8(&raw.parent_id).unwrap()).unwrap(),
                    traffic_type: TrafficType(raw.traffic_type),
                    cost: raw.cost,
                    created_at: raw.created_at,
                };
                Packet { id: raw.id, message: Message::Content(*kind, metadata) }
            }
            Self::Reserved { id, tag, value } => {
                Packet { id: *id, message: Message::Reserved(ReservedTag::new(*tag).unwrap(), value) }
            }
            Self::Close { id } => Packet { id: *id, message: Message::Close },
            Self::Error { id, code, message } => {
                let message = Bounded::new(message).unwrap();
                let error = ErrorMessage { code: ErrorCode::from(*code), message };
                Packet { id: *id, message: Message::Error(error) }
            }
        }
    }

    /// As bytes, by hand.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Download { id, kind, task_id, number } => {
                build::download(*id, 2 * position(*kind), task_id.as_bytes(), *number)
            }
            Self::Content { raw, .. } => raw.bytes(),
            Self::Reserved { id, tag, value } => build::packet(*id, *tag, value),
            Self::Close { id } => build::packet(*id, 0xFE, &[]),
            Self::Error { id, code, message } => build::error(*id, *code, message.as_bytes()),
        }
    }
}

/// Tags come in pairs, one for each kind.
fn position(kind: PieceKind) -> u8 {
    match kind {
        PieceKind::Piece => 0,
        PieceKind::Persistent => 1,
        PieceKind::PersistentCache => 2,
        PieceKind::Cache => 3,
    }
}

pub(crate) fn kind() -> impl Strategy<Value = PieceKind> {
    select(&PieceKind::ALL[..])
}

/// Numbers at the edges as often as anywhere.
fn number() -> impl Strategy<Value = u32> {
    prop_oneof![select(&[0, 1, 255, u32::MAX - 1, u32::MAX][..]), any::<u32>()]
}

fn wide() -> impl Strategy<Value = u64> {
    prop_oneof![select(&[0, 1, 0xFFFF_FFFF, 1u64 << 32, u64::MAX][..]), any::<u64>()]
}

/// Text of up to `max` bytes, with characters of every width, at the limit as often as not.
fn text(max: usize) -> impl Strategy<Value = String> {
    let cut = move |text: String| text[..text.floor_char_boundary(max)].to_owned();
    prop_oneof![
        Just(String::new()),
        "[ -~]{0,40}",
        any::<String>().prop_map(cut),
        "[a-zé☃🜁\u{0}]{1,8}".prop_map(move |text| cut(text.repeat(max / text.len() + 1))),
        Just("x".repeat(max)),
    ]
}

pub(crate) fn digest() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<u32>().prop_map(|sum| format!("crc32:{sum}")),
        "sha256:[0-9a-f]{64}",
        "sha512:[0-9a-f]{128}",
        text(limits::MAX_DIGEST_LEN),
    ]
}

fn content() -> impl Strategy<Value = Owned> {
    let lengths = prop_oneof![select(&[0, 1, 1u64 << 30][..]), 0..=1u64 << 30];
    let texts = (digest(), text(limits::MAX_PARENT_ID_LEN));
    let numbers = (number(), wide(), lengths, any::<u8>(), wide(), any::<i64>());
    (kind(), any::<u8>(), texts, numbers).prop_map(|(kind, id, (digest, parent_id), numbers)| {
        let (number, offset, piece_length, traffic_type, cost, created_at) = numbers;
        let raw = RawContent {
            id,
            tag: 2 * position(kind) + 1,
            number,
            offset,
            piece_length,
            digest: digest.into_bytes(),
            parent_id: parent_id.into_bytes(),
            traffic_type,
            cost,
            created_at,
            ..RawContent::default()
        };
        Owned::Content { kind, raw }
    })
}

/// Any packet that may be sent, or that has a reserved tag.
pub(crate) fn packet() -> impl Strategy<Value = Owned> {
    prop_oneof![
        3 => (any::<u8>(), kind(), "[0-9a-f]{64}", number())
            .prop_map(|(id, kind, task_id, number)| Owned::Download { id, kind, task_id, number }),
        4 => content(),
        1 => (any::<u8>(), 0x08..=0xFDu8, value())
            .prop_map(|(id, tag, value)| Owned::Reserved { id, tag, value }),
        1 => any::<u8>().prop_map(|id| Owned::Close { id }),
        2 => (any::<u8>(), any::<u8>(), text(limits::MAX_ERROR_MESSAGE_LEN))
            .prop_map(|(id, code, message)| Owned::Error { id, code, message }),
    ]
}

/// A value without a meaning, at its limit at times.
fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => vec(any::<u8>(), 0..200),
        1 => Just(vec![0xA5; limits::MAX_VALUE_LEN as usize]),
    ]
}

/// Bytes that are nearly a packet: one whose fields lie, or that was damaged on the way.
pub(crate) fn nearly() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        2 => lying_content(),
        1 => odd_values(),
        3 => (packet(), vec(damage(), 1..4)).prop_map(|(packet, damages)| {
            damages.iter().fold(packet.bytes(), |bytes, damage| damage.apply(bytes))
        }),
        1 => vec(any::<u8>(), 0..120),
    ]
}

/// A field of the metadata lies, or is above its limit, or is no text, or more follows.
fn lying_content() -> impl Strategy<Value = Vec<u8>> {
    let lie = prop_oneof![Just(None), number().prop_map(Some), (0..400u32).prop_map(Some)];
    let rarely = prop_oneof![6 => Just(None), 1 => lie];
    let long = prop_oneof![
        2 => vec(0x61..0x7Bu8, 0..60),
        1 => vec(0x61..0x7Bu8, 250..260),
        1 => vec(0x61..0x7Bu8, 1020..1030),
        1 => vec(any::<u8>(), 0..20),
    ];
    let lengths = (rarely.clone(), rarely.clone(), rarely.clone(), rarely);
    let sizes = prop_oneof![2 => Just(9), 1 => (1u64 << 30) - 1..(1 << 30) + 3, 1 => wide()];
    let tails = (vec(any::<u8>(), 0..20), prop_oneof![3 => Just(0), 1 => 0..70usize]);
    let dates = prop_oneof![2 => 0..4_000_000_000i64, 1 => any::<i64>()];
    (kind(), lengths, long.clone(), long, sizes, dates, tails).prop_map(
        |(kind, lengths, digest, parent_id, piece_length, created_at, tails)| {
            let (length, metadata_length, digest_length, parent_id_length) = lengths;
            let (appended, shortened) = tails;
            let tag = 2 * position(kind) + 1;
            let raw = RawContent { tag, length, metadata_length, digest_length, parent_id_length, ..raw() };
            RawContent { digest, parent_id, piece_length, created_at, appended, shortened, ..raw }.bytes()
        },
    )
}

fn raw() -> RawContent {
    RawContent::default()
}

/// Whole packets whose value is odd: of another length, of another alphabet, above the limit, not empty.
fn odd_values() -> impl Strategy<Value = Vec<u8>> {
    let sizes = prop_oneof![4 => 0..120usize, 1 => 16_380..16_390usize, 1 => Just(70_000)];
    prop_oneof![
        2 => (any::<u8>(), 0..4u8, "[0-9a-gA-F]{64}", any::<u32>())
            .prop_map(|(id, kind, task_id, number)| build::download(id, 2 * kind, task_id.as_bytes(), number)),
        3 => (any::<u8>(), any::<u8>(), sizes, any::<u8>())
            .prop_map(|(id, tag, size, fill)| build::packet(id, tag, &vec![fill & 0x7F; size])),
        1 => (any::<u8>(), vec(any::<u8>(), 0..40)).prop_map(|(id, value)| build::packet(id, 0xFF, &value)),
        1 => (any::<u8>(), vec(any::<u8>(), 0..40)).prop_map(|(id, value)| build::packet(id, 0xFE, &value)),
    ]
}

/// What can happen to bytes.
#[derive(Debug, Clone)]
pub(crate) enum Damage {
    Set(proptest::sample::Index, u8),
    Flip(proptest::sample::Index, u8),
    Header(u32),
    Cut(proptest::sample::Index),
    Insert(proptest::sample::Index, Vec<u8>),
}

pub(crate) fn damage() -> impl Strategy<Value = Damage> {
    use proptest::sample::Index;
    prop_oneof![
        (any::<Index>(), select(&[0u8, 1, 0x7F, 0x80, 0xFF][..])).prop_map(|(at, to)| Damage::Set(at, to)),
        (any::<Index>(), 0..8u8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        prop_oneof![0..80u32, 16_380..16_390u32, any::<u32>()].prop_map(Damage::Header),
        any::<Index>().prop_map(Damage::Cut),
        (any::<Index>(), vec(any::<u8>(), 1..9)).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
    ]
}

impl Damage {
    pub(crate) fn apply(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        let length = bytes.len();
        match self {
            Self::Set(at, to) if length > 0 => bytes[at.index(length)] = *to,
            Self::Flip(at, bit) if length > 0 => bytes[at.index(length)] ^= 1 << bit,
            Self::Header(to) if length >= 6 => bytes[2..6].copy_from_slice(&to.to_be_bytes()),
            Self::Cut(at) => bytes.truncate(at.index(length + 1)),
            Self::Insert(at, more) => {
                let at = at.index(length + 1);
                bytes.splice(at..at, more.iter().copied());
            }
            _ => {}
        }
        bytes
    }
}

/// The bytes of one direction of a connection: packets and content, some of them damaged, perhaps cut at the end.
pub(crate) fn stream() -> impl Strategy<Value = Vec<u8>> {
    let short = (content(), 0..60u64).prop_map(|(packet, length)| match packet {
        Owned::Content { raw, .. } => {
            let mut bytes = RawContent { piece_length: length, ..raw }.bytes();
            bytes.extend((0..length).map(|at| at as u8));
            bytes
        }
        other => other.bytes(),
    });
    let part = prop_oneof![
        4 => short,
        3 => packet().prop_filter_map("content that nobody sends", |packet| match packet {
            Owned::Content { .. } => None,
            other => Some(other.bytes()),
        }),
        1 => odd_values(),
        1 => lying_content(),
        1 => nearly(),
    ];
    (vec(part, 1..6), proptest::option::weighted(0.3, any::<proptest::sample::Index>())).prop_map(
        |(parts, cut)| {
            let mut bytes = parts.concat();
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len() + 1));
            }
            bytes
        },
    )
}
