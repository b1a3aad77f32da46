//! Whole exchanges, drawn as values and not as bytes: a client's requests through the server's reader, the answers through
//! the client's, in parts of any size, truthful or with one thing wrong. What is true arrives; what is not never does.
#![no_main]

use arbitrary::Arbitrary;
use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use vortex_p2p::session::{Answer, AnswerStep, Ask, ClientEvent, ClientRequest, Incoming, RequestReader};
use vortex_p2p::wire::{
    Algorithm, Bounded, Digest, Download, Metadata, PieceKind, PieceLength, TaskId, TrafficType,
};

#[derive(Debug, Arbitrary)]
struct Exchange {
    requests: Vec<Request>,
    cuts: Vec<u8>,
}

#[derive(Debug, Arbitrary)]
struct Request {
    id: u8,
    kind: u8,
    task: [u8; 32],
    number: u32,
    content: Vec<u8>,
    algorithm: u8,
    parent: String,
    offset: u64,
    created_at: i64,
    knows_length: bool,
    knows_digest: bool,
    lenient: bool,
    lie: Lie,
}

#[derive(Debug, Arbitrary)]
enum Lie {
    None,
    /// A byte of the content is another.
    Content {
        at: usize,
        bits: u8,
    },
    /// The answer ends early.
    Cut {
        by: usize,
    },
    /// Bytes follow the piece.
    Longer(u8),
    /// Another piece.
    Number(u32),
    /// Another kind.
    Kind(u8),
}

fuzz_target!(|exchange: Exchange| {
    let mut cuts = exchange.cuts.iter().copied().cycle();
    let mut sent = Vec::new();
    for request in &exchange.requests {
        sent.extend(request.download().encode(request.id));
    }
    let mut reader = RequestReader::new();
    let mut read = Vec::new();
    for part in cut(&sent.into(), &mut cuts) {
        let mut part = part.as_ref();
        while let Some(incoming) = reader.receive(&mut part) {
            let Incoming::Request { id, download } = incoming else { panic!("no request: {incoming:?}") };
            read.push((id, download));
        }
    }
    assert!(reader.is_idle());
    let asked: Vec<_> = exchange.requests.iter().map(|request| (request.id, request.download())).collect();
    assert_eq!(read, asked);
    for request in &exchange.requests {
        request.answer(&mut cuts);
    }
});

impl Request {
    fn kind(&self, choice: u8) -> PieceKind {
        PieceKind::ALL[usize::from(choice) % PieceKind::ALL.len()]
    }

    fn download(&self) -> Download {
        Download { kind: self.kind(self.kind), task_id: TaskId::from_sha256(self.task), number: self.number }
    }

    fn answer(&self, cuts: &mut impl Iterator<Item = u8>) {
        let algorithm =
            [Algorithm::Crc32, Algorithm::Sha256, Algorithm::Sha512][usize::from(self.algorithm) % 3];
        let digest = Digest::of(algorithm, &self.content);
        let length = PieceLength::try_from(self.content.len() as u64).expect("inputs are small");
        let text = digest.to_text();
        let download = self.download();
        let (number, kind) = match self.lie {
            Lie::Number(number) => (number, download.kind),
            Lie::Kind(kind) => (download.number, self.kind(kind)),
            _ => (download.number, download.kind),
        };
        let metadata = Metadata {
            number,
            offset: self.offset,
            length,
            digest: Bounded::cut(text.as_str()),
            parent_id: Bounded::cut(&self.parent),
            traffic_type: TrafficType::REMOTE_PEER,
            cost: 0,
            created_at: self.created_at,
        };
        let mut answer = Answer::new(self.id, kind, &metadata, digest);
        let mut bytes = BytesMut::new();
        loop {
            match answer.step() {
                AnswerStep::Send(head) => bytes.extend_from_slice(&head),
                AnswerStep::Content { offset, length } => {
                    let offset = offset as usize;
                    let step = usize::from(cuts.next().unwrap_or(255)).clamp(1, length as usize);
                    let part = &self.content[offset..offset + step];
                    bytes.extend_from_slice(part);
                    answer.content(part).expect("the content is the one of the digest");
                }
                AnswerStep::Done => break,
            }
        }
        let mut truthful = (number, kind) == (download.number, download.kind);
        let begin = bytes.len() - self.content.len();
        match self.lie {
            Lie::Content { at, bits } if !self.content.is_empty() && bits != 0 => {
                bytes[begin + at % self.content.len()] ^= bits;
                truthful = false;
            }
            Lie::Cut { by } if by != 0 => {
                let cut = by % (bytes.len() + 1);
                truthful &= cut == 0;
                bytes.truncate(bytes.len() - cut);
            }
            Lie::Longer(byte) => {
                bytes.extend_from_slice(&[byte]);
                truthful = false;
            }
            _ => {}
        }
        let ask = Ask {
            length: self.knows_length.then_some(length),
            digest: self.knows_digest.then_some(digest),
            lenient: self.lenient,
            ..Ask::new(download)
        };
        let received = receive(ask, &cut(&bytes.freeze(), cuts));
        assert_eq!(received.is_some(), truthful);
        assert!(received.is_none_or(|content| content == self.content));
    }
}

/// The content, if all of it came and was verified.
fn receive(ask: Ask, parts: &[Bytes]) -> Option<Vec<u8>> {
    let mut request = ClientRequest::new(ask);
    let mut content = Vec::new();
    for part in parts {
        let mut part = part.clone();
        while !part.is_empty() {
            if let Some(ClientEvent::Content(bytes)) = request.receive(&mut part).ok()? {
                content.extend_from_slice(&bytes);
            }
        }
    }
    request.finish().ok()?.verified?;
    Some(content)
}

fn cut(bytes: &Bytes, cuts: &mut impl Iterator<Item = u8>) -> Vec<Bytes> {
    let mut rest = bytes.clone();
    let mut parts = Vec::new();
    while !rest.is_empty() {
        let length = cuts.next().map_or(rest.len(), |cut| usize::from(cut).clamp(1, rest.len()));
        parts.push(rest.split_to(length));
    }
    parts
}
