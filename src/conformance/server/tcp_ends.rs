//! TCP: how a connection ends.

use super::basics::is_answer;
use super::talk::expect_code;
use super::{Subject, cases};
use crate::conformance::case::{Shown, blame, ensure, fail, or_blame, skip};
use crate::conformance::draft::packet;
use crate::conformance::lane::Event;

cases! {
    "VTX-TCP-007" Tcp Nothing "the end of the connection after a Length above 16384 was refused" => closes_after_too_long;
    "VTX-TCP-008/request" Tcp Request "one Error 1 and the end, for a request that does not complete" => closes_late;
    "VTX-TCP-008/skipped" Tcp Request "the end without a second Error packet, for a skipped value that does not complete" => closes_skipping;
    "VTX-TCP-009/value" Tcp Nothing "an answer, one Error 1, the end: the bytes end within a value" => |s| ends_within(s, 40);
    "VTX-TCP-009/header" Tcp Nothing "an answer, one Error 1, the end: the bytes end within a header" => |s| ends_within(s, 5);
    "VTX-TCP-011" Tcp Nothing "all answers and the end after the client's end" => half_closed;
    "VTX-TCP-011/nothing" Tcp Nothing "the end, and no Error packet, when nothing was asked" => |s: Subject| async move {
        let mut talk = s.talk().await?;
        talk.finish().await;
        talk.ends().await
    };
    "VTX-TCP-012/fresh" Tcp Idle "the end without a packet after the idle timeout" => |s| idle(s, false);
    "VTX-TCP-012/used" Tcp Idle "the end without a packet after an answer and the idle timeout" => |s| idle(s, true);
    "VTX-LIM-001/idle" Tcp Idle "the idle timeout, and not much earlier" => idle_timeout;
    "VTX-TCP-013" Tcp Nothing "the last Error packet, although there are bytes that the server has not read" => last_words;
    "VTX-LIM-002/tcp" Tcp Progress "an answer broken off that nobody reads" => progress;
}

async fn closes_after_too_long(subject: Subject) -> Shown {
    let mut talk = subject.say(&packet(1, 0x00, 16_385, b"")).await?;
    talk.refused_or(1, "VTX-FRM-011").await?;
    talk.closes().await
}

async fn closes_late(subject: Subject) -> Shown {
    let mut talk = subject.say(subject.ask(1, 0).get(..50).unwrap_or_default()).await?;
    let within = subject.target.deadlines.request + subject.target.waits.soon;
    match talk.answer_within(within).await? {
        Some(answer) => {
            or_blame(expect_code(answer, 1), "VTX-ERR-009")?;
            talk.closes().await
        }
        None => blame("VTX-ERR-009", "no Error packet"),
    }
}

async fn closes_skipping(subject: Subject) -> Shown {
    let mut talk = subject.say(&packet(1, 0x00, 67, b"ten bytes.")).await?;
    talk.refused_or(1, "VTX-FRM-013").await?;
    match talk.end_within(subject.target.deadlines.request + subject.target.waits.soon).await {
        Event::Fin | Event::Lost(..) => Ok(()),
        other => fail(other.to_string()),
    }
}

async fn ends_within(subject: Subject, after: usize) -> Shown {
    let request = subject.ask(1, 0);
    let part = request.get(..after).unwrap_or_default();
    let mut talk = subject.say(&[&request, part].concat()).await?;
    talk.finish().await;
    talk.content().await?;
    expect_code(talk.next_answer("VTX-TCP-004").await?, 1)?;
    talk.closes().await
}

async fn half_closed(subject: Subject) -> Shown {
    let mut talk = subject.say(&[subject.ask(1, 0), subject.ask(2, 0)].concat()).await?;
    talk.finish().await;
    for _ in 0..2 {
        let answer = talk.next_answer("VTX-TCP-011").await?;
        ensure(answer.is_content(), || answer.to_string())?;
    }
    talk.ends().await
}

async fn idle(subject: Subject, used: bool) -> Shown {
    let mut talk = subject.talk().await?;
    if used {
        talk.send(&subject.ask(1, 0)).await;
        talk.content().await?;
    }
    let within = subject.target.deadlines.idle + subject.target.waits.soon;
    match talk.end_within(within).await {
        Event::Fin | Event::Lost(..) => Ok(()),
        Event::Bytes(bytes) if used && !is_answer(&bytes) => {
            blame("VTX-CNT-017", Event::Bytes(bytes).to_string())
        }
        other => fail(format!("{other} within {within:?}")),
    }
}

async fn idle_timeout(subject: Subject) -> Shown {
    let mut talk = subject.talk().await?;
    let begun = subject.runtime.now();
    let end = talk.end_within(subject.target.deadlines.idle + subject.target.waits.soon).await;
    let took = subject.runtime.now() - begun;
    match end {
        Event::Silence => blame("VTX-TCP-012", "the connection stays open"),
        Event::Bytes(bytes) => blame("VTX-TCP-012", Event::Bytes(bytes).to_string()),
        _ => ensure(took >= subject.target.deadlines.idle.mul_f64(0.8), || format!("the end after {took:?}")),
    }
}

async fn last_words(subject: Subject) -> Shown {
    let mut talk = subject.talk().await?;
    let flood = [packet(1, 0x00, 20_000, b""), vec![0; 300_000]].concat();
    talk.send(&flood).await;
    match talk.answer_within(subject.target.waits.soon).await {
        Ok(Some(answer)) => drop(or_blame(expect_code(answer, 1), "VTX-FRM-011")?),
        Ok(None) => match talk.end_state() {
            Event::Lost(_, why) => return fail(format!("{why} in place of the Error packet")),
            other => return blame("VTX-FRM-011", format!("{other} in place of an Error packet")),
        },
        Err(_) => return fail("a part of the Error packet"),
    }
    match talk.end().await {
        Event::Fin => Ok(()),
        Event::Lost(_, why) => fail(format!("{why} after it")),
        other => blame("VTX-TCP-007", format!("{other} after it")),
    }
}

/// More than the buffers of both systems hold.
const ANSWERS: u64 = 64 << 20;
/// Requests are this many at most, since they have to arrive while nothing is read.
const REQUESTS: u64 = 16_384;

async fn progress(subject: Subject) -> Shown {
    let length = subject.say(&subject.ask(1, 0)).await?.content().await?.1.length;
    let count = ANSWERS.div_ceil(length.max(1)).max(2);
    if count > REQUESTS {
        return skip(format!("needs a larger piece 0: {length} bytes"));
    }
    let mut talk = subject.talk().await?;
    let requests = subject.ask(1, 0).repeat(usize::try_from(count).unwrap_or_default());
    talk.send(&requests).await;
    subject.runtime.sleep(subject.target.deadlines.progress + subject.target.waits.soon / 4).await;
    for _ in 0..count {
        if !matches!(talk.answer_within(subject.target.waits.quiet * 2).await, Ok(Some(_))) {
            return match talk.end().await {
                Event::Silence => fail("the connection stays open"),
                _ => Ok(()),
            };
        }
    }
    fail("every answer, once they were read")
}
