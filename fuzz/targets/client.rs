//! Any bytes as the answer to a request: never more content than was promised, never an unverified piece called verified,
//! and the same end wherever the bytes are cut.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use vortex_fuzz::{Draw, split};
use vortex_p2p::session::{Ask, ClientEvent, ClientRequest, Failure, Piece, Received};
use vortex_p2p::wire::{Algorithm, Digest, Download, Message, Packet, PieceKind, PieceLength, TaskId};

fuzz_target!(|bytes: &[u8]| {
    let ask = ask(bytes);
    let whole = receive(ask, &[Bytes::copy_from_slice(bytes)]);
    assert_eq!(whole, receive(ask, &split(bytes)), "where the bytes are cut is of no account");

    let (piece, content, outcome) = whole;
    let Some(piece) = piece else { return assert!(outcome.is_err() && content.is_empty()) };
    assert_eq!(piece.number, ask.download.number);
    assert!(content.len() <= piece.length.get() as usize);
    assert!(piece.claim.is_some() || ask.lenient);
    let Ok(received) = outcome else { return };
    assert_eq!(content.len(), piece.length.get() as usize, "a piece is whole or it failed");
    if let Some(verified) = received.verified {
        assert_eq!(Digest::of(verified.algorithm(), &content), verified);
    }
    if let Some(known) = ask.digest {
        assert_eq!(Digest::of(known.algorithm(), &content), known);
    }
    if let Some(claim) = &piece.claim {
        assert!(claim.matches(&Digest::of(claim.algorithm(), &content)));
    }
});

/// A request that the bytes may be an answer to.
fn ask(bytes: &[u8]) -> Ask {
    let mut draw = Draw::of(bytes);
    let decoded = Packet::decode(bytes).ok();
    let (kind, number, length) = match decoded.map(|(packet, _)| packet.message) {
        Some(Message::Content(kind, metadata)) => (kind, metadata.number, metadata.length),
        _ => (PieceKind::Piece, 0, PieceLength::default()),
    };
    let content = decoded.map_or(&[][..], |(_, rest)| rest);
    let content = &content[..content.len().min(length.get() as usize)];
    let algorithm = [Algorithm::Crc32, Algorithm::Sha256, Algorithm::Sha512][draw.below(3)];
    let download = Download { kind, task_id: TaskId::from_sha256([7; 32]), number };
    Ask {
        length: (draw.below(2) == 0).then_some(length),
        digest: (draw.below(2) == 0).then(|| Digest::of(algorithm, content)),
        lenient: draw.below(2) == 0,
        ..Ask::new(download)
    }
}

fn receive(ask: Ask, parts: &[Bytes]) -> (Option<Piece>, Vec<u8>, Result<Received, Failure>) {
    let mut request = ClientRequest::new(ask);
    let (mut piece, mut content) = (None, Vec::new());
    for part in parts {
        let mut part = part.clone();
        while !part.is_empty() {
            match request.receive(&mut part) {
                Ok(Some(ClientEvent::Answered(answered))) => {
                    assert!(piece.replace(answered).is_none(), "one answer to one request");
                }
                Ok(Some(ClientEvent::Content(bytes))) => content.extend_from_slice(&bytes),
                Ok(None) => assert!(part.is_empty()),
                // How much content came before depends on the cuts; that it is no piece does not.
                Err(failure) => return (piece, Vec::new(), Err(failure)),
            }
        }
    }
    (piece, content, request.finish())
}
