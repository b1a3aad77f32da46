//! One request, as its client sees it.
//!
//! ```text
//!  asked --Content packet--> content arrives --length bytes--> whole --end, digest matches--> received
//!    |                            |                              |
//!    +-- Error, Close, end        +-- end                        +-- more bytes (QUIC), mismatch
//! ```

use crate::canary::planted;
use crate::wire::extension::ExtensionError;
use crate::wire::{
    DecodeError, Decoder, Digest, DigestClaim, DigestError, Download, ErrorCode, Escaped, Hasher, Message,
    Metadata, PieceKind, PieceLength, Tag, TrafficType,
};
use bytes::{Buf, Bytes};

/// What a client asks for, and what it knows of it beforehand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    /// Which piece.
    pub download: Download,
    /// Its length, where it is known: any other is rejected before the first content byte.
    pub length: Option<PieceLength>,
    /// Its digest from a source other than the server, where there is one: the content has to match it, too.
    pub digest: Option<Digest>,
    /// Whether a piece may be taken whose digest can't be checked. It is then reported as not verified.
    pub lenient: bool,
}

impl Ask {
    /// A request for a piece of which nothing is known.
    #[must_use]
    pub fn new(download: Download) -> Self {
        Self { download, length: None, digest: None, lenient: false }
    }
}

/// What the server says of the piece, checked against what was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The piece number, the one that was asked for.
    pub number: u32,
    /// Bytes of content.
    pub length: PieceLength,
    /// The digest as the server claims it; `None` only for a lenient client.
    pub claim: Option<DigestClaim>,
    /// Where the server says that the piece begins in its task. Not to be used as a position.
    pub claimed_offset: u64,
    /// Which peer the server has the piece from; may be empty.
    pub parent_id: String,
    /// Where the piece came from, by the server's word.
    pub traffic_type: TrafficType,
    /// How long the server took to get the piece, in whole seconds.
    pub cost: u64,
    /// When the server got the piece, in seconds since the Unix epoch.
    pub created_at: i64,
}

/// A piece that is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// The digest that was computed over the content and matched; `None` when a lenient client could check nothing.
    pub verified: Option<Digest>,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientEvent {
    /// The server answers with the piece; its content follows.
    Answered(Piece),
    /// The next bytes of the content. They are not verified before [`ClientRequest::finish`] says so.
    Content(Bytes),
}

/// Why a request ended without its piece.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The stream or connection ended before a byte of an answer. Deployed servers refuse so what they do not know.
    #[error("no answer: the peer ended without a byte")]
    NotAnswered,
    /// The server sent Close in place of an answer: it shuts down, and the request may go elsewhere.
    #[error("the peer is going away")]
    GoingAway,
    /// The server answered with an Error packet.
    #[error("the peer refused: {code}{}", Explained(message))]
    Refused {
        /// What went wrong.
        code: ErrorCode,
        /// In the peer's words; not safe for a terminal, unlike this error's own text.
        message: String,
    },
    /// The answer can't be accepted.
    #[error("the answer was rejected: {0}")]
    Rejected(#[from] Rejection),
}

/// Why an answer can't be accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// It is no packet.
    #[error("{0}")]
    Malformed(DecodeError),
    /// It is no message of gRPC.
    #[error("no piece in a gRPC message: {0}")]
    BadMessage(String),
    /// It is a packet that answers nothing.
    #[error("a {0} packet where an answer was expected")]
    NoAnswer(Tag),
    /// It has content of another kind.
    #[error("content of kind {got}, expected {expected}")]
    OtherKind {
        /// The kind asked for.
        expected: PieceKind,
        /// The kind answered with.
        got: PieceKind,
    },
    /// It has another piece.
    #[error("piece {got}, expected {expected}")]
    OtherNumber {
        /// The number asked for.
        expected: u32,
        /// The number answered with.
        got: u32,
    },
    /// The piece has another length than is known.
    #[error("a piece of {got} bytes, expected {expected}")]
    OtherLength {
        /// The length known.
        expected: PieceLength,
        /// The length announced.
        got: PieceLength,
    },
    /// It is the answer of an extension, and does not hold its fields.
    #[error("the answer of an extension: {0}")]
    Extension(ExtensionError),
    /// The digest can't be checked.
    #[error("digest: {0}")]
    Digest(DigestError),
    /// The content does not have the digest that the server announced.
    #[error("the content does not have the digest that the peer announced")]
    Mismatch,
    /// The content does not have the digest that was known beforehand.
    #[error("the content does not have the digest that was expected")]
    OtherDigest,
    /// It ended before it was complete.
    #[error("the answer ended after {received} of {expected} content bytes")]
    Incomplete {
        /// Content bytes that arrived.
        received: u32,
        /// Content bytes announced.
        expected: PieceLength,
    },
    /// Its stream was reset.
    #[error("the answer was reset by the peer")]
    Reset,
    /// Bytes follow the content on its stream.
    #[error("bytes after the content")]
    Trailing,
}

impl Failure {
    /// Whether the answer's content did not have its digest: the connection's boundaries are still known then.
    #[must_use]
    pub fn is_mismatch(&self) -> bool {
        matches!(self, Self::Rejected(Rejection::Mismatch | Rejection::OtherDigest))
    }
}

/// One request at the client: what it sent, and what has come back.
#[derive(Debug)]
pub struct ClientRequest {
    ask: Ask,
    state: State,
}

#[derive(Debug)]
enum State {
    /// The answer's packet is incomplete; `begun` once a byte of it is here.
    Asked { decoder: Decoder, begun: bool },
    /// The packet is here, the content is not.
    Content(Box<Content>),
    /// A failure was reported.
    Failed,
}

#[derive(Debug)]
struct Content {
    length: PieceLength,
    received: u32,
    claim: Option<DigestClaim>,
    /// One hasher for each algorithm that is needed: the claim's, and that of the known digest where it differs.
    claimed: Option<Hasher>,
    known: Option<Hasher>,
}

impl ClientRequest {
    /// A request that is sent now: [`Download::encode`] has its bytes.
    #[must_use]
    pub fn new(ask: Ask) -> Self {
        Self { ask, state: State::Asked { decoder: Decoder::new(), begun: false } }
    }

    /// A request whose answer came by another way than a packet, as over gRPC: the metadata is judged like that of a
    /// Content packet, and [`ClientRequest::receive`] takes the content.
    ///
    /// # Errors
    /// [`Rejection`]: the request has ended.
    pub fn answered(ask: Ask, metadata: &Metadata<'_>) -> Result<(Self, Piece), Rejection> {
        let (piece, content) = accept_metadata(&ask, metadata)?;
        Ok((Self { ask, state: State::Content(content) }, piece))
    }

    /// Whether the answer's packet is still to come: until then the first-byte deadline runs.
    #[must_use]
    pub fn is_awaiting_answer(&self) -> bool {
        matches!(self.state, State::Asked { .. })
    }

    /// Content bytes that are still to come; `None` while the answer's packet is.
    ///
    /// At 0 the answer is complete. On TCP the next byte belongs to the next answer; on QUIC the end of the stream has
    /// to follow.
    #[must_use]
    pub fn remaining(&self) -> Option<u32> {
        match &self.state {
            State::Content(content) => Some(content.length.get() - content.received),
            State::Asked { .. } | State::Failed => None,
        }
    }

    /// Takes bytes from the front of `input` and says what they mean; `None` when more are needed.
    ///
    /// On QUIC, call it until `input` is empty: bytes after the content are an error. On TCP, stop when
    /// [`ClientRequest::remaining`] is 0.
    ///
    /// # Errors
    /// [`Failure`]: the request has ended. Nothing more is taken.
    pub fn receive(&mut self, input: &mut Bytes) -> Result<Option<ClientEvent>, Failure> {
        let outcome = match &mut self.state {
            State::Asked { decoder, begun } => {
                *begun |= !input.is_empty();
                let mut rest = input.as_ref();
                let answer = match decoder.decode(&mut rest) {
                    Ok(None) => Ok(None),
                    Ok(Some(packet)) => accept(&self.ask, packet.message).map(Some),
                    Err(error) => Err(Rejection::Malformed(error).into()),
                };
                let taken = input.len() - rest.len();
                input.advance(taken);
                answer
            }
            State::Content(content) => content.receive(input).map(|bytes| bytes.map(Step::Content)),
            State::Failed => Err(Failure::NotAnswered),
        };
        match outcome {
            Ok(None) => Ok(None),
            Ok(Some(Step::Content(bytes))) => Ok(Some(ClientEvent::Content(bytes))),
            Ok(Some(Step::Answered(piece, content))) => {
                self.state = State::Content(content);
                Ok(Some(ClientEvent::Answered(piece)))
            }
            Err(failure) => {
                self.state = State::Failed;
                Err(failure)
            }
        }
    }

    /// The answer has ended: with its stream on QUIC, with its last content byte or with the connection on TCP.
    ///
    /// # Errors
    /// [`Failure`] when it is incomplete, or its content does not have the digest that it should have.
    pub fn finish(self) -> Result<Received, Failure> {
        match self.state {
            //= VTX-QUC-030
            //= VTX-TCP-016
            State::Asked { begun: false, .. } | State::Failed => Err(Failure::NotAnswered),
            State::Asked { decoder, .. } => {
                let error = decoder.finish().err().unwrap_or(DecodeError::Truncated { have: 0, need: 0 });
                Err(Rejection::Malformed(error).into())
            }
            State::Content(content) => content.finish(self.ask.digest),
        }
    }
}

enum Step {
    Answered(Piece, Box<Content>),
    Content(Bytes),
}

/// Judges the packet that came where an answer was expected. Its id is of no account.
//= VTX-FRM-007
fn accept(ask: &Ask, message: Message<'_>) -> Result<Step, Failure> {
    match message {
        Message::Content(kind, metadata) => {
            let expected = ask.download.kind;
            //= VTX-CNT-020
            if kind != expected {
                return Err(Rejection::OtherKind { expected, got: kind }.into());
            }
            let (piece, content) = accept_metadata(ask, &metadata)?;
            Ok(Step::Answered(piece, content))
        }
        Message::Error(error) => {
            Err(Failure::Refused { code: error.code, message: error.message.as_str().to_owned() })
        }
        //= VTX-CLS-007
        Message::Close => Err(Failure::GoingAway),
        //= VTX-CNT-021
        Message::Download(_) | Message::Reserved(..) => Err(Rejection::NoAnswer(message.tag()).into()),
    }
}

fn accept_metadata(ask: &Ask, metadata: &Metadata<'_>) -> Result<(Piece, Box<Content>), Rejection> {
    let number = ask.download.number;
    //= VTX-CNT-007
    if metadata.number != number {
        return Err(Rejection::OtherNumber { expected: number, got: metadata.number });
    }
    //= VTX-CNT-011
    if let Some(expected) = ask.length
        && metadata.length != expected
    {
        return Err(Rejection::OtherLength { expected, got: metadata.length });
    }
    let claim = match DigestClaim::parse(metadata.digest.as_str()) {
        Ok(claim) => Some(claim),
        //= VTX-DIG-011
        //= VTX-DIG-012
        Err(DigestError::Empty | DigestError::UnknownAlgorithm) if ask.lenient => None,
        //= VTX-DIG-010
        Err(error) => return Err(Rejection::Digest(error)),
    };
    let known = ask.digest.map(|digest| digest.algorithm());
    let claimed = claim.map(|claim| claim.algorithm());
    let content = Content {
        length: metadata.length,
        received: 0,
        claim,
        claimed: claimed.map(Hasher::new),
        known: known.filter(|known| Some(*known) != claimed).map(Hasher::new),
    };
    //= VTX-CNT-009
    //= VTX-CNT-016
    let piece = Piece {
        number,
        length: metadata.length,
        claim,
        claimed_offset: metadata.offset,
        parent_id: metadata.parent_id.as_str().to_owned(),
        traffic_type: metadata.traffic_type,
        cost: metadata.cost,
        created_at: metadata.created_at,
    };
    Ok((piece, Box::new(content)))
}

impl Content {
    fn receive(&mut self, input: &mut Bytes) -> Result<Option<Bytes>, Failure> {
        if input.is_empty() {
            return Ok(None);
        }
        let missing = self.length.get() - self.received;
        //= VTX-QUC-029
        if missing == 0 {
            return Err(Rejection::Trailing.into());
        }
        //= VTX-CNT-018
        let bytes = input.split_to(input.len().min(missing as usize));
        self.received += u32::try_from(bytes.len()).unwrap_or(missing);
        for hasher in [&mut self.claimed, &mut self.known].into_iter().flatten() {
            if planted("last-chunk-unhashed") && self.received == self.length.get() {
                continue;
            }
            hasher.update(&bytes);
        }
        Ok(Some(bytes))
    }

    fn finish(self, known: Option<Digest>) -> Result<Received, Failure> {
        //= VTX-CNT-019
        if self.received < self.length.get() {
            return Err(Rejection::Incomplete { received: self.received, expected: self.length }.into());
        }
        let claimed = self.claimed.map(Hasher::finish);
        //= VTX-DIG-014
        //= VTX-DIG-015
        if let (Some(claim), Some(computed)) = (self.claim, claimed)
            && !claim.matches(&computed)
            && !planted("digest-unchecked")
        {
            return Err(Rejection::Mismatch.into());
        }
        //= VTX-DIG-016
        let computed = self.known.map(Hasher::finish).or(claimed);
        if let (Some(expected), Some(computed)) = (known, computed)
            && expected != computed
            && !planted("digest-unchecked")
        {
            return Err(Rejection::OtherDigest.into());
        }
        //= VTX-DIG-013
        Ok(Received { verified: computed })
    }
}

/// A peer's words after a colon, or nothing.
struct Explained<'a>(&'a str);

impl std::fmt::Display for Explained<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        /// Characters of a peer's message that a person is shown.
        const SHOWN: usize = 200;
        if self.0.is_empty() {
            return Ok(());
        }
        let end = self.0.floor_char_boundary(SHOWN);
        let more = if end < self.0.len() { "…" } else { "" };
        write!(f, ": {}{more}", Escaped(self.0.get(..end).unwrap_or_default()))
    }
}
