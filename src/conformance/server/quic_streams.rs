//! QUIC: streams, and the codes that end them.

use super::basics::is_answer;
use super::close::held_up;
use super::dial::Dial;
use super::talk::{Talk, expect_code};
use super::{Subject, cases};
use crate::conformance::case::{Shown, blame, ensure, fail, or_blame, skip};
use crate::conformance::draft::{close, framed, packet};
use crate::conformance::lane::Event;

cases! {
    "VTX-QUC-014" Quic Nothing "the answer before the client has finished its side" => before_the_end;
    "VTX-QUC-015/content" Quic Nothing "FIN after the last content byte" => |s: Subject| async move {
        let request = s.ask(1, 0);
        fin_after(s, request).await
    };
    "VTX-QUC-015/error" Quic Nothing "FIN after an Error packet" => |s: Subject| async move {
        let request = s.ask_unknown(1);
        fin_after(s, request).await
    };
    "VTX-QUC-015/refused" Quic Nothing "FIN after Error 1" => |s| fin_after(s, framed(1, 0x42, b""));
    "VTX-QUC-016" Quic Nothing "one answer on a stream with two requests" => |s: Subject| async move {
        let said = [s.ask(1, 0), s.ask(2, 0)].concat();
        one_answer(s, said).await
    };
    "VTX-QUC-016/garbage" Quic Nothing "one answer on a stream with a request and garbage" => |s: Subject| async move {
        let said = [s.ask(1, 0), vec![0xA5; 300]].concat();
        one_answer(s, said).await
    };
    "VTX-QUC-021/too-long" Quic Nothing "STOP_SENDING 2 with the refusal of a Length above 16384" => |s| stopped_with_2(s, packet(1, 0x00, 16_385, b""));
    "VTX-QUC-021/bad-length" Quic Nothing "STOP_SENDING 2 with the refusal of a wrong Length" => |s| stopped_with_2(s, packet(1, 0x00, 67, b""));
    "VTX-QUC-021/deadline" Quic Request "STOP_SENDING 4 when the request deadline has passed" => stopped_late;
    "VTX-QUC-022/empty" Quic Nothing "Error 1 to an empty stream" => |s: Subject| async move {
        s.say(b"").await?.refused(1).await.map(drop)
    };
    "VTX-QUC-022/part" Quic Nothing "Error 1 to a stream that ends within a request" => |s: Subject| async move {
        let part = s.ask(1, 0);
        s.say(part.get(..30).unwrap_or_default()).await?.refused(1).await.map(drop)
    };
    "VTX-QUC-023/progress" Quic Progress "RESET_STREAM 4 for an answer that nobody reads" => broken_off;
    "VTX-LIM-002/quic" Quic Progress "an answer broken off that nobody reads" => no_progress;
    "VTX-QUC-024/before" Quic Nothing "RESET_STREAM 7 and no answer to a request that is reset" => reset;
    "VTX-QUC-024/after" Quic Nothing "the answer to a request that is reset after its last byte" => reset_after;
    "VTX-QUC-025" Quic Nothing "RESET_STREAM after STOP_SENDING" => stop;
    "VTX-QUC-035/reset" Quic Nothing "RESET_STREAM handled in the same way whatever its code" => any_code;
    "VTX-QUC-035/stop" Quic Nothing "STOP_SENDING handled in the same way whatever its code" => any_stop;
    "VTX-REQ-010/streams" Quic Nothing "each of 50 streams at once with its own answer" => many_streams;
    "VTX-CLS-003/finished" Quic Nothing "FIN without a byte on the stream of a Close packet" => |s: Subject| async move {
        s.say(&close(1)).await?.ends().await
    };
}

async fn before_the_end(subject: Subject) -> Shown {
    let mut talk = subject.talk().await?;
    talk.send(&subject.ask(1, 0)).await;
    talk.content_or("VTX-QUC-014").await.map(drop)
}

async fn fin_after(subject: Subject, request: Vec<u8>) -> Shown {
    let mut talk = subject.say(&request).await?;
    let requirement = if request.get(1) == Some(&0x42) { "VTX-ERR-008" } else { "VTX-REQ-010" };
    if talk.answer_within(subject.target.waits.soon).await?.is_none() {
        return blame(requirement, "no answer");
    }
    match talk.end().await {
        Event::Fin => Ok(()),
        Event::Bytes(bytes) => {
            let requirement = if is_answer(&bytes) { "VTX-REQ-010" } else { "VTX-CNT-017" };
            blame(requirement, Event::Bytes(bytes).to_string())
        }
        other => fail(other.to_string()),
    }
}

async fn one_answer(subject: Subject, said: Vec<u8>) -> Shown {
    let mut talk = subject.say(&said).await?;
    talk.content_or("VTX-QUC-016").await?;
    match talk.end().await {
        Event::Fin => Ok(()),
        // A second answer to the first request is another fault.
        Event::Bytes(bytes) if bytes.first() == Some(&1) => {
            blame("VTX-REQ-010", Event::Bytes(bytes).to_string())
        }
        Event::Bytes(bytes) if !is_answer(&bytes) => blame("VTX-CNT-017", Event::Bytes(bytes).to_string()),
        Event::Bytes(bytes) => fail(format!("{} after the answer", Event::Bytes(bytes))),
        other => blame("VTX-QUC-015", format!("{other} after the answer")),
    }
}

async fn stopped_with_2(subject: Subject, said: Vec<u8>) -> Shown {
    let mut talk = subject.talk().await?;
    talk.send(&said).await;
    let too_long = said.get(2..6) > Some(&[0, 0, 0x40, 0]);
    talk.refused_or(1, if too_long { "VTX-FRM-011" } else { "VTX-FRM-013" }).await?;
    let code = talk.stopped().await;
    ensure(code == Some(2), || format!("STOP_SENDING {code:?}"))
}

async fn stopped_late(subject: Subject) -> Shown {
    let mut talk = subject.talk().await?;
    talk.send(subject.ask(1, 0).get(..50).unwrap_or_default()).await;
    let within = subject.target.deadlines.request + subject.target.waits.soon;
    match talk.answer_within(within).await? {
        Some(answer) => drop(or_blame(expect_code(answer, 1), "VTX-ERR-009")?),
        None => return blame("VTX-ERR-009", "no Error packet"),
    }
    let code = talk.stopped().await;
    ensure(code == Some(4), || format!("STOP_SENDING {code:?}"))
}

/// Does not read an answer for the progress deadline, and then says how it went on.
async fn unread(subject: &Subject) -> Shown<Event> {
    let (_dialed, mut answer) = held_up(subject).await?;
    subject.runtime.sleep(subject.target.deadlines.progress + subject.target.waits.soon / 4).await;
    match answer.content().await {
        Ok((content, _)) if content.content.len() <= super::close::HELD as usize => {
            skip("needs a larger piece 0: it was sent before anything could hold it up")
        }
        Ok(_) => Ok(Event::Fin),
        Err(stop) if answer.end_state() == Event::Silence => Err(stop),
        Err(_) => Ok(answer.end_state()),
    }
}

async fn broken_off(subject: Subject) -> Shown {
    match unread(&subject).await? {
        Event::Reset(4) => Ok(()),
        Event::Fin => blame("VTX-LIM-002", "the whole answer"),
        other => fail(other.to_string()),
    }
}

async fn no_progress(subject: Subject) -> Shown {
    match unread(&subject).await? {
        Event::Reset(_) | Event::Lost(..) => Ok(()),
        Event::Fin => fail("the whole answer, once it was read"),
        other => fail(other.to_string()),
    }
}

async fn reset_with(subject: &Subject, code: u32) -> Shown<Event> {
    let mut talk = subject.talk().await?;
    talk.send(subject.ask(1, 0).get(..50).unwrap_or_default()).await;
    // The bytes are to arrive before the reset.
    subject.runtime.sleep(subject.target.waits.quiet / 4).await;
    talk.lane.reset(code);
    Ok(talk.end().await)
}

async fn reset(subject: Subject) -> Shown {
    match reset_with(&subject, 7).await? {
        Event::Reset(7) => Ok(()),
        other => fail(other.to_string()),
    }
}

async fn reset_after(subject: Subject) -> Shown {
    let (_dialed, mut answer) = held_up(&subject).await?;
    answer.lane.reset(7);
    answer.content_or("VTX-QUC-024").await.map(drop)
}

/// Stops a held-up answer and waits for the RESET_STREAM that QUIC demands. It does not show on a stream that was stopped,
/// so frames are counted.
async fn stop_with(subject: &Subject, code: u32) -> Shown<bool> {
    let (dialed, mut answer) = held_up(subject).await?;
    if answer.end_state() == Event::Fin {
        return skip("needs a larger piece 0");
    }
    answer.lane.stop(code);
    let step = subject.target.waits.quiet / 8;
    let until = subject.runtime.now() + subject.target.waits.soon;
    while subject.runtime.now() < until {
        if dialed.connection.stats().frame_rx.reset_stream > 0 {
            return Ok(true);
        }
        subject.runtime.sleep(step).await;
    }
    Ok(false)
}

async fn stop(subject: Subject) -> Shown {
    ensure(stop_with(&subject, 7).await?, || "no RESET_STREAM".to_owned())
}

async fn any_code(subject: Subject) -> Shown {
    let expected = reset_with(&subject, 7).await?;
    for code in [0, 5, 99, 0x3FFF_FFFF] {
        let seen = reset_with(&subject, code).await?;
        ensure(seen == expected, || format!("{seen} after the code {code}, {expected} after 7"))?;
    }
    Ok(())
}

async fn any_stop(subject: Subject) -> Shown {
    let expected = stop_with(&subject, 7).await?;
    for code in [0, 2, 12_345] {
        let seen = stop_with(&subject, code).await?;
        ensure(seen == expected, || format!("RESET_STREAM {seen} after {code}, {expected} after 7"))?;
    }
    Ok(())
}

async fn many_streams(subject: Subject) -> Shown {
    let dialed = subject.dial(Dial::default()).await?;
    let mut talks = Vec::new();
    for id in 0..50 {
        let mut talk = Talk::new(subject.clone(), subject.stream(&dialed.connection).await?);
        // Every other request is for nothing, so that an answer on the wrong stream shows.
        let request = if id % 2 == 0 { subject.ask(id, u32::MAX) } else { subject.ask(id, 0) };
        talk.send(&request).await;
        talk.finish().await;
        talks.push((id, talk));
    }
    for (id, mut talk) in talks {
        let answer = talk.answer().await?;
        ensure(answer.is_content() == (id % 2 == 1), || format!("{answer} on stream {id}"))?;
    }
    Ok(())
}
