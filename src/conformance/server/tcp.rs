//! TCP: the order of answers, and how long a connection stays.

use super::basics::is_answer;
use super::talk::Talk;
use super::{Subject, cases};
use crate::conformance::case::{Shown, blame, ensure, fail, skip};
use crate::conformance::draft::{framed, packet};
use crate::conformance::lane::Event;

cases! {
    "VTX-TCP-001" Tcp Nothing "answers in the order of the requests" => in_order;
    "VTX-TCP-002" Tcp Nothing "an answer to each of 32 requests that arrive at once" => pipelined;
    "VTX-TCP-002/split" Tcp Nothing "an answer to each of several requests that arrive in odd parts" => pipelined_in_parts;
    "VTX-TCP-003" Tcp Nothing "a server that stops reading while its answers are not read" => stops_reading;
    "VTX-TCP-004/content" Tcp Nothing "an open connection after content" => |s: Subject| async move {
        let request = s.ask(1, 0);
        stays_open(s, request).await
    };
    "VTX-TCP-004/not-found" Tcp Nothing "an open connection after Error 2" => |s: Subject| async move {
        let request = s.ask_unknown(1);
        stays_open(s, request).await
    };
    "VTX-TCP-005" Tcp Nothing "silence on a connection on which nothing was asked" => |s: Subject| async move {
        s.talk().await?.silence().await
    };
    "VTX-TCP-005/after" Tcp Nothing "silence after an answer" => silence_after;
    "VTX-TCP-006/length" Tcp Nothing "the value of a packet with a wrong Length skipped" => |s| skips(s, packet(1, 0x00, 67, &[b'a'; 67]));
    "VTX-TCP-006/task-id" Tcp Nothing "the next request answered after a bad task id" => |s| skips(s, framed(1, 0x00, &[b'Z'; 68]));
    "VTX-TCP-006/large" Tcp Nothing "a refused value of 16384 bytes skipped" => |s| skips(s, packet(1, 0x00, 16_384, &[b'a'; 16_384]));
    "VTX-TCP-006/later" Tcp Nothing "a refused value skipped that arrives after the Error packet" => skips_later;
    "VTX-TCP-006/once" Tcp Nothing "one Error packet for a refused packet, however its value looks" => one_error;
}

async fn in_order(subject: Subject) -> Shown {
    let said = [subject.ask(1, 0), subject.ask_unknown(2), subject.ask(3, 0), subject.ask(4, u32::MAX)];
    let mut talk = subject.say(&said.concat()).await?;
    for held in [true, false, true, false] {
        let answer = talk.next_answer("VTX-TCP-004").await?;
        ensure(answer.is_content() == held, || answer.to_string())?;
    }
    Ok(())
}

async fn pipelined(subject: Subject) -> Shown {
    let said: Vec<u8> = (0..32).flat_map(|id| subject.ask_unknown(id)).collect();
    let mut talk = subject.say(&said).await?;
    for _ in 0..32 {
        talk.next_answer("VTX-TCP-004").await?;
    }
    Ok(())
}

async fn pipelined_in_parts(subject: Subject) -> Shown {
    let said: Vec<u8> = (0..8).flat_map(|id| subject.ask(id, 0)).collect();
    let mut talk = subject.talk().await?;
    for part in said.chunks(100) {
        talk.send(part).await;
        subject.runtime.sleep(std::time::Duration::from_millis(2)).await;
    }
    for _ in 0..8 {
        let answer = talk.next_answer("VTX-TCP-004").await?;
        if !answer.is_content() {
            return blame("VTX-REQ-011", answer.to_string());
        }
    }
    Ok(())
}

/// More than the buffers of both systems hold beside the 65,536 bytes that the server may.
const FLOOD: usize = 64 << 20;

async fn stops_reading(subject: Subject) -> Shown {
    let mut talk = subject.talk().await?;
    let chunk = subject.ask(1, 0).repeat(1024);
    let mut sent = 0;
    while sent < FLOOD {
        if !talk.lane.send(&subject.runtime, &chunk, subject.target.waits.quiet * 4).await {
            return Ok(());
        }
        sent += chunk.len();
    }
    // Whoever has ended the connection discards what arrives, and holds none of it. The end comes after no more than what the
    // buffers hold of answers; from a server that goes on, more comes than that, or nothing at all.
    let mut read = 0;
    while read < FLOOD {
        match talk.end().await {
            Event::Bytes(bytes) => read += bytes.len(),
            Event::Silence => break,
            end => return skip(format!("{end}, after which requests are not held")),
        }
    }
    fail(format!("{sent} bytes of requests taken without an answer being read"))
}

async fn stays_open(subject: Subject, request: Vec<u8>) -> Shown {
    let mut talk = subject.say(&request).await?;
    talk.answer().await?;
    match talk.end_within(subject.target.waits.quiet).await {
        Event::Silence => {}
        Event::Bytes(bytes) if !is_answer(&bytes) => {
            return blame("VTX-CNT-017", Event::Bytes(bytes).to_string());
        }
        Event::Bytes(bytes) => return blame("VTX-TCP-005", Event::Bytes(bytes).to_string()),
        end => return fail(end.to_string()),
    }
    talk.send(&request).await;
    match talk.answer_within(subject.target.waits.soon).await? {
        Some(_) => Ok(()),
        None => fail(format!("{} in answer to the next request", talk.end_state())),
    }
}

async fn silence_after(subject: Subject) -> Shown {
    let mut talk = subject.say(&subject.ask(1, 0)).await?;
    talk.content().await?;
    match talk.end_within(subject.target.waits.quiet).await {
        Event::Bytes(bytes) if !is_answer(&bytes) => blame("VTX-CNT-017", Event::Bytes(bytes).to_string()),
        Event::Bytes(bytes) => fail(Event::Bytes(bytes).to_string()),
        _ => Ok(()),
    }
}

async fn skips(subject: Subject, refused: Vec<u8>) -> Shown {
    let mut talk = subject.say(&refused).await?;
    talk.refused_or(1, "VTX-ERR-007").await?;
    next_is_content(subject, talk).await
}

/// The request that follows a refused packet is answered.
async fn next_is_content(subject: Subject, mut talk: Talk) -> Shown {
    talk.send(&subject.ask(7, 0)).await;
    match talk.answer_within(subject.target.waits.soon).await? {
        Some(next) if next.is_content() => Ok(()),
        Some(next) => fail(format!("{next} in answer to the request after it")),
        None => fail(format!("{} in answer to the request after it", talk.end_state())),
    }
}

async fn skips_later(subject: Subject) -> Shown {
    let mut talk = subject.say(&packet(1, 0x02, 500, b"")).await?;
    talk.refused_or(1, "VTX-FRM-013").await?;
    talk.send(&[0; 500]).await;
    next_is_content(subject, talk).await
}

async fn one_error(subject: Subject) -> Shown {
    // Its value looks like packets that would be refused themselves.
    let value = packet(9, 0x00, 1, b"x").repeat(20);
    let mut talk = subject.say(&framed(1, 0x04, &value)).await?;
    talk.refused_or(1, "VTX-ERR-007").await?;
    match talk.end_within(subject.target.waits.quiet).await {
        Event::Silence => Ok(()),
        Event::Bytes(bytes) => fail(Event::Bytes(bytes).to_string()),
        end => skip(format!("the connection has ended: {end}")),
    }
}
