//! Vectors of whole connections.

mod both;
mod client;
mod rejected;
mod server;

use super::model::{Bytes, Vector, array, object, text};
use super::packets::{CRC, TASK};

pub(super) const NINE_SHA256: &str = "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225";
const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const ABC_SHA256: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
const FOUR_MIB_SHA256: &str = "1bea0a58a086ef4b8a1b832a91d1f49091de3390870345a3e8d5de33367d83c7";
const NINE: &[u8] = b"123456789";
const KINDS: [&str; 4] = ["piece", "persistent", "persistent-cache", "cache"];

fn packet(id: u8, tag: u8, value: &[u8]) -> Vec<u8> {
    let length = u32::try_from(value.len()).unwrap().to_be_bytes();
    [&[id, tag][..], &length, value].concat()
}

fn request(id: u8, kind: u8, number: u32) -> Vec<u8> {
    packet(id, 2 * kind, &[TASK.as_bytes(), &number.to_be_bytes()].concat())
}

fn error(id: u8, code: u8, message: &str) -> Vec<u8> {
    packet(id, 0xFF, &[&[code], message.as_bytes()].concat())
}

fn close(id: u8) -> Vec<u8> {
    packet(id, 0xFE, &[])
}

/// A Content packet.
#[derive(Clone, Copy)]
struct Answer<'a> {
    id: u8,
    tag: u8,
    number: u32,
    offset: u64,
    length: u64,
    digest: &'a [u8],
    parent_id: &'a [u8],
    last: (u8, u64, i64),
    appended: &'a [u8],
    metadata_length: i64,
}

const ANSWER: Answer<'_> = Answer {
    id: 1,
    tag: 0x01,
    number: 0,
    offset: 0,
    length: 9,
    digest: CRC.as_bytes(),
    parent_id: b"",
    last: (1, 0, 1_767_225_600),
    appended: b"",
    metadata_length: 0,
};

impl Answer<'_> {
    fn packet(&self) -> Vec<u8> {
        let count = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap().to_be_bytes();
        let (traffic_type, cost, created_at) = self.last;
        let fields = [
            &self.number.to_be_bytes()[..],
            &self.offset.to_be_bytes(),
            &self.length.to_be_bytes(),
            &count(self.digest),
            self.digest,
            &count(self.parent_id),
            self.parent_id,
            &[traffic_type],
            &cost.to_be_bytes(),
            &created_at.to_be_bytes(),
            self.appended,
        ]
        .concat();
        let length = u32::try_from(i64::try_from(fields.len()).unwrap() + self.metadata_length).unwrap();
        packet(self.id, self.tag, &[&length.to_be_bytes(), &fields[..]].concat())
    }

    fn with(&self, content: &[u8]) -> Vec<u8> {
        [&self.packet(), content].concat()
    }
}

fn nine() -> Vec<u8> {
    ANSWER.with(NINE)
}

/// A session under construction.
struct Session {
    vector: Vector,
    steps: Vec<String>,
    requests: Vec<String>,
}

impl Session {
    fn new(id: &str, comment: &str, requirements: &str, flags: &str, tests: &str) -> Self {
        let transport = id.split('-').nth(1).unwrap();
        let vector = Vector::new(id, comment, requirements, flags)
            .with("transport", text(transport))
            .with("tests", text(tests));
        Self { vector, steps: Vec::new(), requests: Vec::new() }
    }

    /// The piece of nine bytes, under a kind.
    fn holds(mut self, kinds: &[usize]) -> Self {
        let piece = |kind: &usize| {
            object([
                ("kind", text(KINDS[*kind])),
                ("task_id", text(TASK)),
                ("number", "0".to_owned()),
                ("offset", text("0")),
                ("digest", text(CRC)),
                ("hex", text(&super::model::hex(NINE))),
            ])
        };
        self.vector = self.vector.list("holds", kinds.iter().map(piece).collect());
        self
    }

    fn holds_other(mut self, number: u32, offset: u64, digest: &str, content: &Bytes) -> Self {
        let bytes = content.member();
        let piece = object([
            ("kind", text("piece")),
            ("task_id", text(TASK)),
            ("number", number.to_string()),
            ("offset", text(&offset.to_string())),
            ("digest", text(digest)),
            bytes,
        ]);
        self.vector = self.vector.list("holds", vec![piece]);
        self
    }

    fn step(
        mut self,
        from: &str,
        stream: Option<u32>,
        bytes: &Bytes,
        more: &[(&'static str, String)],
    ) -> Self {
        let mut members = vec![("from", text(from))];
        members.extend(stream.map(|stream| ("stream", stream.to_string())));
        if !bytes.expand().is_empty() {
            members.push(bytes.member());
        }
        members.extend(more.iter().cloned());
        self.steps.push(object(members));
        self
    }

    fn client(self, bytes: &[u8]) -> Self {
        self.step("client", None, &Bytes::hex(bytes), &[])
    }

    fn server(self, bytes: &[u8]) -> Self {
        self.step("server", None, &Bytes::hex(bytes), &[])
    }

    fn split(self, from: &str, bytes: &[u8], lengths: &[usize]) -> Self {
        let split = array(lengths.iter().map(ToString::to_string));
        self.step(from, None, &Bytes::hex(bytes), &[("split", split)])
    }

    fn end(self, from: &str) -> Self {
        self.step(from, None, &Bytes::default(), &[("end", text("finish"))])
    }

    /// Bytes on a stream that end it.
    fn finish(self, from: &str, stream: u32, bytes: &[u8]) -> Self {
        self.step(from, Some(stream), &Bytes::hex(bytes), &[("end", text("finish"))])
    }

    fn on(self, from: &str, stream: u32, bytes: &[u8]) -> Self {
        self.step(from, Some(stream), &Bytes::hex(bytes), &[])
    }

    fn ends(self, from: &str, stream: Option<u32>, end: &str, code: u8) -> Self {
        let more = [("end", text(end)), ("code", code.to_string())];
        self.step(from, stream, &Bytes::default(), &more)
    }

    fn outcome(mut self, stream: Option<u32>, members: &[(&'static str, String)]) -> Self {
        let mut all: Vec<_> = stream.map(|stream| ("stream", stream.to_string())).into_iter().collect();
        all.extend(members.iter().cloned());
        self.requests.push(object(all));
        self
    }

    /// A request for a piece of the task.
    fn asked(
        self,
        stream: Option<u32>,
        kind: usize,
        number: u32,
        members: &[(&'static str, String)],
    ) -> Self {
        let mut all =
            vec![("kind", text(KINDS[kind])), ("task_id", text(TASK)), ("number", number.to_string())];
        all.extend(members.iter().cloned());
        self.outcome(stream, &all)
    }

    fn connection(mut self, state: &str) -> Vector {
        let requests = array(self.requests);
        self.vector = self.vector.list("steps", self.steps);
        let expect = if state.is_empty() {
            object([("requests", requests)])
        } else {
            object([("requests", requests), ("connection", text(state))])
        };
        self.vector.with("expect", expect)
    }
}

type Members = Vec<(&'static str, String)>;

fn piece(sha256: &str) -> Members {
    vec![("outcome", text("piece")), ("sha256", text(sha256))]
}

fn failed(code: u8, message: &str) -> Members {
    vec![("outcome", text("error")), ("code", code.to_string()), ("message", text(message))]
}

fn rejected(reason: &str) -> Members {
    vec![("outcome", text("rejected")), ("reason", text(reason))]
}

fn outcome(outcome: &str) -> Members {
    vec![("outcome", text(outcome))]
}

pub(super) fn all() -> Vec<Vector> {
    [
        both::tcp(),
        server::tcp_server(),
        client::tcp_client(),
        rejected::rejections(),
        both::quic(),
        server::quic_server(),
        client::quic_client(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
