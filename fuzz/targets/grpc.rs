//! Any bytes as the response of a gRPC peer: never more content than the piece has, and the same end wherever they are cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use vortex_fuzz::{Draw, split};
use vortex_p2p::client::GrpcResponse;
use vortex_p2p::session::Ask;
use vortex_p2p::wire::{Algorithm, Digest, Download, PieceKind, PieceLength, TaskId};

fuzz_target!(|bytes: &[u8]| {
    let mut draw = Draw::of(bytes);
    let download = Download {
        kind: PieceKind::Piece,
        task_id: TaskId::from_sha256([7; 32]),
        number: draw.below(3) as u32,
    };
    let length = PieceLength::try_from(draw.below(20) as u64).ok().filter(|_| draw.below(2) == 0);
    let ask = Ask { length, lenient: draw.below(2) == 0, ..Ask::new(download) };
    // In a frame of its own, as deployed peers send it, or with whatever frame the bytes make.
    let mut framed = Vec::new();
    if draw.below(4) > 0 {
        framed.push(0);
        framed.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    }
    framed.extend_from_slice(bytes);

    let whole = receive(ask, [&framed[..]]);
    if let Ok((declared, verified, content)) = &whole {
        assert_eq!(content.len(), *declared as usize, "a piece is whole or it failed");
        assert!(length.is_none_or(|length| length.get() == *declared));
        assert!(verified.is_some() || ask.lenient);
        if let Some((algorithm, digest)) = verified {
            assert_eq!(Digest::of(*algorithm, content), *digest);
        }
    }
    assert_eq!(
        receive(ask, split(&framed).iter().map(|part| &part[..])),
        whole,
        "where the bytes are cut is of no account"
    );
});

type Got = (u32, Option<(Algorithm, Digest)>, Vec<u8>);

fn receive<'a>(ask: Ask, parts: impl IntoIterator<Item = &'a [u8]>) -> Result<Got, ()> {
    let mut response = GrpcResponse::new(ask);
    for part in parts {
        response.receive(part).map_err(drop)?;
    }
    let mut answer = response.finish().map_err(drop)?;
    assert_eq!(answer.piece().number, ask.download.number);
    let declared = answer.piece().length.get();
    // All of it is here: nothing has to be waited for.
    let content = match pin!(answer.collect()).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(content) => content.map_err(drop)?,
        Poll::Pending => panic!("an answer that is here and waits"),
    };
    let verified = answer.received().and_then(|received| received.verified);
    Ok((declared, verified.map(|digest| (digest.algorithm(), digest)), content))
}
