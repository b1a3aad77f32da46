//! Close.

use super::dial::{Dial, Dialed};
use super::talk::Talk;
use super::{Subject, cases};
use crate::conformance::Transport;
use crate::conformance::case::{Shown, blame, ensure, fail, skip};
use crate::conformance::draft::{close, framed};
use crate::conformance::lane::{Event, lost};

cases! {
    "VTX-CLS-002" Both Nothing "a Close packet with a value taken for Close" => |s: Subject| async move {
        closed_by(s, framed(1, 0xFE, b"a value")).await
    };
    "VTX-CLS-002/largest" Both Nothing "a Close packet with a value of 16384 bytes taken for Close" => |s: Subject| async move {
        closed_by(s, framed(1, 0xFE, &[0; 16_384])).await
    };
    "VTX-CLS-003" Both Nothing "no packet in answer to Close" => |s| closed_by(s, close(1));
    "VTX-CLS-004/answers" Tcp Nothing "answers to what was asked before Close, then the end" => finishes_tcp;
    "VTX-CLS-004/stream" Quic Nothing "the answer under way at Close, whole" => finishes_quic;
    "VTX-CLS-004/code" Quic Nothing "the connection closed with code 0 after Close" => closes_with_0;
    "VTX-CLS-005" Tcp Nothing "no answer to a request after Close" => nothing_after;
    "VTX-CLS-006/incomplete" Quic Nothing "RESET_STREAM 5 and STOP_SENDING 5 for a request that is incomplete at Close" => |s| turned_away(s, true);
    "VTX-CLS-006/later" Quic Nothing "RESET_STREAM 5 and STOP_SENDING 5 for a stream after Close" => |s| turned_away(s, false);
}

/// What is said is Close: no packet comes back, and the server's side ends.
async fn closed_by(subject: Subject, said: Vec<u8>) -> Shown {
    let mut talk = subject.say(&said).await?;
    match (subject.target.transport, talk.end().await) {
        (_, Event::Fin) | (Transport::Tcp, Event::Lost(..)) | (Transport::Quic, Event::Lost(Some(0), _)) => {
            Ok(())
        }
        (_, Event::Silence) => blame("VTX-CLS-004", "nothing, and no end"),
        (_, Event::Bytes(bytes)) => blame("VTX-CLS-003", Event::Bytes(bytes).to_string()),
        (_, other) => fail(other.to_string()),
    }
}

async fn finishes_tcp(subject: Subject) -> Shown {
    let said = [subject.ask(1, 0), subject.ask(2, 0), subject.ask(3, 0), close(4)].concat();
    let mut talk = subject.say(&said).await?;
    for _ in 0..3 {
        talk.next_answer("VTX-CLS-004").await?;
    }
    match talk.end().await {
        Event::Bytes(bytes) => blame("VTX-CLS-003", format!("{} after Close", Event::Bytes(bytes))),
        Event::Silence => fail("the connection stays open"),
        _ => Ok(()),
    }
}

async fn nothing_after(subject: Subject) -> Shown {
    let mut talk = subject.say(&[close(1), subject.ask(2, 0)].concat()).await?;
    match talk.answer_within(subject.target.waits.soon).await? {
        None => Ok(()),
        Some(answer) if answer.id == 1 && answer.tag == 0xFF => blame("VTX-CLS-003", answer.to_string()),
        Some(answer) => fail(answer.to_string()),
    }
}

/// Credit that a held-up answer gets: its metadata and some content.
pub(super) const HELD: u32 = 2048;

/// A connection, and an answer on it that can't go on because this side grants no more credit.
pub(super) async fn held_up(subject: &Subject) -> Shown<(Dialed, Talk)> {
    let dialed = subject.dial(Dial { window: HELD, apart: true, ..Dial::default() }).await?;
    let mut talk = Talk::new(subject.clone(), subject.stream(&dialed.connection).await?);
    talk.send(&subject.ask(1, 0)).await;
    talk.finish().await;
    if !talk.begins().await {
        return blame("VTX-REQ-011", "no answer");
    }
    Ok((dialed, talk))
}

/// Sends Close on a stream of its own.
async fn say_close(subject: &Subject, dialed: &Dialed) -> Shown<Talk> {
    let mut talk = Talk::new(subject.clone(), subject.stream(&dialed.connection).await?);
    talk.send(&close(2)).await;
    talk.finish().await;
    Ok(talk)
}

async fn finishes_quic(subject: Subject) -> Shown {
    let (dialed, mut answer) = held_up(&subject).await?;
    let mut close = say_close(&subject, &dialed).await?;
    close.end().await;
    answer.content_or("VTX-CLS-004").await.map(drop)
}

async fn closes_with_0(subject: Subject) -> Shown {
    let dialed = subject.dial(Dial::default()).await?;
    let _close = say_close(&subject, &dialed).await?;
    let closed = dialed.connection.closed();
    match subject.runtime.timeout(subject.target.waits.soon, closed).await {
        Ok(error) => match lost(&error) {
            Event::Lost(Some(0), _) => Ok(()),
            other => fail(other.to_string()),
        },
        Err(_) => fail("the connection stays open"),
    }
}

async fn turned_away(subject: Subject, before: bool) -> Shown {
    let (dialed, mut answer) = held_up(&subject).await?;
    let part = subject.ask(3, 0);
    let part = part.get(..20).unwrap_or_default();
    let open = async || {
        let mut other = Talk::new(subject.clone(), subject.stream(&dialed.connection).await?);
        other.send(part).await;
        Ok(other)
    };
    let earlier = if before { Some(open().await?) } else { None };
    say_close(&subject, &dialed).await?.end().await;
    let mut other = match earlier {
        Some(earlier) => earlier,
        None => open().await?,
    };
    if dialed.connection.close_reason().is_some() {
        return skip("the answer that was to hold the connection was too small, or was not finished");
    }
    let (reset, stopped) = (other.end().await, other.stopped().await);
    ensure(reset == Event::Reset(5) && stopped == Some(5), || format!("{reset}, STOP_SENDING {stopped:?}"))?;
    answer.content_or("VTX-CLS-004").await.map(drop)
}
