//! Packets: how answers are encoded, and how requests are read.

use super::talk::{Answer, Talk, expect_code};
use super::{Subject, cases};
use crate::conformance::Transport;
use crate::conformance::case::{Shown, Stop, blame, ensure, fail};
use crate::conformance::draft::{framed, packet};
use crate::conformance::lane::Event;
use std::time::Duration;

cases! {
    "VTX-FRM-001/content" Both Nothing "a Content packet, content, and nothing more" => |s| ends_where_it_says(s, true);
    "VTX-FRM-001/error" Both Nothing "an Error packet that ends where its Length says" => |s| ends_where_it_says(s, false);
    "VTX-FRM-002" Both Nothing "id, tag and Length in the header, in this order" => fields;
    "VTX-FRM-003" Both Nothing "Length, metadata length, number and length in big-endian" => byte_order;
    "VTX-FRM-004" Both Nothing "a Length that counts the metadata only" => |s| async move { content(&s).await.map(drop) };
    "VTX-FRM-005/metadata" Both Nothing "digest and parent id in UTF-8, without a terminator" => metadata_text;
    "VTX-FRM-005/error" Both Nothing "error messages in UTF-8, without a terminator" => error_text;
    "VTX-FRM-006/content" Both Nothing "the request's id in the Content packet" => |s| repeats_the_id(s, true);
    "VTX-FRM-006/error" Both Nothing "the request's id in the Error packet" => |s| repeats_the_id(s, false);
    "VTX-FRM-008/pipelined" Tcp Nothing "an Error packet for each of 255 headers with all tags but Close" => every_header;
    "VTX-FRM-008/streams" Quic Nothing "an Error packet for headers with all sorts of tags" => many_headers;
    "VTX-FRM-009/bytes" Both Nothing "the same answer to a request that arrives a byte at a time" => |s| split(s, 1);
    "VTX-FRM-009/header" Both Nothing "the same answer to a request whose header arrives first" => |s| split(s, 6);
    "VTX-FRM-009/last" Both Nothing "the same answer to a request whose last byte arrives late" => |s| split(s, 73);
    "VTX-FRM-009/refused" Both Nothing "Error 1 to a malformed packet that arrives a byte at a time" => split_refused;
    "VTX-FRM-010" Tcp Nothing "too-long before bad-length: the connection is closed" => too_long_first;
    "VTX-FRM-010/length" Tcp Nothing "bad-length before bad-task-id: refused before the value is there" => length_first;
    "VTX-FRM-011/download" Both Nothing "Error 1 to a request with a Length of 16385" => |s| too_long(s, 0x00, 16_385);
    "VTX-FRM-011/reserved" Both Nothing "Error 1 to a reserved tag with a Length of 16385" => |s| too_long(s, 0x42, 16_385);
    "VTX-FRM-011/close" Both Nothing "Error 1 to a Close packet with a Length of 16385" => |s| too_long(s, 0xFE, 16_385);
    "VTX-FRM-011/4gib" Both Nothing "Error 1 at once to a Length of 4294967295" => |s| too_long(s, 0x00, u32::MAX);
    "VTX-FRM-012/short" Both Nothing "Error 1 to a request with a Length of 67" => |s| bad_length(s, 0x00, 67);
    "VTX-FRM-012/long" Both Nothing "Error 1 to a request with a Length of 69" => |s| bad_length(s, 0x00, 69);
    "VTX-FRM-012/empty" Both Nothing "Error 1 to a request with a Length of 0" => |s| bad_length(s, 0x00, 0);
    "VTX-FRM-012/content" Both Nothing "Error 1 to a Content packet with a Length of 48" => |s| bad_length(s, 0x01, 48);
    "VTX-FRM-012/error" Both Nothing "Error 1 to an Error packet with a Length of 0" => |s| bad_length(s, 0xFF, 0);
    "VTX-FRM-013/bad-length" Both Nothing "Error 1 to a header with a wrong Length, before the value" => |s| at_once(s, 67);
    "VTX-FRM-013/too-long" Both Nothing "Error 1 to a header with a Length above 16384, before the value" => |s| at_once(s, 16_385);
    "VTX-FRM-014/header" Both Nothing "Error 1 when the bytes end within a header" => |s| truncated(s, 3);
    "VTX-FRM-014/value" Both Nothing "Error 1 when the bytes end within a value" => |s| truncated(s, 73);
    "VTX-TAG-001" Both Nothing "answers with the tags of the registry" => registered_tags;
    "VTX-TAG-002/skipped" Both Nothing "a reserved packet's value passed over, although it looks like a request" => reserved_value;
    "VTX-TAG-002/largest" Both Nothing "a reserved packet's value of 16384 bytes passed over" => reserved_largest;
    "VTX-TAG-003" Both Nothing "no packet with a reserved tag from 0x08 to 0xEF" => nothing_reserved;
    "VTX-TAG-004" Both Nothing "content with the tag one above the request's" => answer_tag;
    "VTX-EXT-001" Both Nothing "Error 1, or the tag one above, to the request of an extension" => extension_tags;
}

/// The answer to a good request.
pub(super) async fn content(subject: &Subject) -> Shown<Answer> {
    Ok(subject.say(&subject.ask(1, 0)).await?.content().await?.0)
}

/// The answer to a request for a task that nobody has.
async fn error(subject: &Subject, id: u8) -> Shown<Answer> {
    subject.say(&subject.ask_unknown(id)).await?.refused_or(2, "VTX-REQ-012").await
}

/// Error packets of all sorts, each from a conversation of its own. What is no Error packet is left out.
pub(super) async fn errors(subject: &Subject) -> Shown<Vec<Answer>> {
    let mut bad_id = subject.ask(2, 0);
    if let Some(byte) = bad_id.get_mut(6) {
        *byte = b'/';
    }
    let said = [
        subject.ask_unknown(1),
        subject.ask(1, u32::MAX),
        bad_id,
        packet(3, 0x00, 5, b"short"),
        framed(4, 0x42, b"reserved"),
        packet(5, 0x00, u32::MAX, b""),
    ];
    let mut errors = Vec::new();
    for bytes in said {
        if let Ok(answer) = subject.say(&bytes).await?.answer().await
            && answer.tag == 0xFF
        {
            errors.push(answer);
        }
    }
    if errors.is_empty() { blame("VTX-ERR-007", "no Error packet at all") } else { Ok(errors) }
}

async fn ends_where_it_says(subject: Subject, held: bool) -> Shown {
    let first = if held { subject.ask(1, 0) } else { subject.ask_unknown(1) };
    let mut talk = match subject.target.transport {
        // What follows shows where the answer ended.
        Transport::Tcp => subject.say(&[first, subject.ask_unknown(2)].concat()).await?,
        Transport::Quic => subject.say(&first).await?,
    };
    if held {
        talk.content().await?;
    } else {
        talk.refused_or(2, "VTX-REQ-012").await?;
    }
    if subject.target.transport == Transport::Quic {
        return finished(&mut talk).await;
    }
    match talk.next_answer("VTX-TCP-004").await {
        Ok(next) if next.tag == 0xFF => Ok(()),
        Ok(next) => fail(format!("then {next}, not the next answer")),
        Err(Stop::Fail { requirement: Some("VTX-FRM-001"), seen }) => fail(format!("after it {seen}")),
        Err(stop) => Err(stop),
    }
}

/// The end of a QUIC stream directly after an answer. Where it does not come, or something else does, another requirement
/// is broken than that of most who ask for it.
pub(super) async fn finished(talk: &mut Talk) -> Shown {
    match talk.end().await {
        Event::Fin => Ok(()),
        Event::Bytes(bytes) => {
            let requirement = if is_answer(&bytes) { "VTX-REQ-010" } else { "VTX-CNT-017" };
            blame(requirement, format!("{} after the answer", Event::Bytes(bytes)))
        }
        other => blame("VTX-QUC-015", format!("{other} after the answer")),
    }
}

/// Whether bytes begin as an answer does.
pub(super) fn is_answer(bytes: &[u8]) -> bool {
    matches!(bytes.get(1), Some(0xFF | 0x01 | 0x03 | 0x05 | 0x07))
}

async fn fields(subject: Subject) -> Shown {
    let answer = content(&subject).await?;
    ensure(answer.tag % 2 == 1 && answer.length >= 49, || {
        format!("tag 0x{:02X}, Length {}", answer.tag, answer.length)
    })
}

async fn byte_order(subject: Subject) -> Shown {
    let (answer, metadata) = subject.say(&subject.ask(1, 0)).await?.content().await?;
    ensure(metadata.length_field == answer.length - 4, || {
        format!("metadata length {}", metadata.length_field)
    })
}

async fn metadata_text(subject: Subject) -> Shown {
    let (_, metadata) = subject.say(&subject.ask(1, 0)).await?.content().await?;
    for text in [&metadata.digest, &metadata.parent_id] {
        ensure(is_text(text), || format!("the text {:?}", String::from_utf8_lossy(text)))?;
    }
    Ok(())
}

async fn error_text(subject: Subject) -> Shown {
    for error in errors(&subject).await? {
        ensure(is_text(error.error_message()), || error.to_string())?;
    }
    Ok(())
}

fn is_text(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok() && bytes.last() != Some(&0)
}

async fn repeats_the_id(subject: Subject, held: bool) -> Shown {
    for id in [0, 1, 0x80, 0xFF] {
        let answer = if held {
            subject.say(&subject.ask(id, 0)).await?.content().await?.0
        } else {
            error(&subject, id).await?
        };
        ensure(answer.id == id, || format!("id {} in the answer to {id}", answer.id))?;
    }
    Ok(())
}

async fn every_header(subject: Subject) -> Shown {
    let tags: Vec<u8> = (0..=0xFF).filter(|tag| *tag != 0xFE && !is_extension(*tag)).collect();
    let headers: Vec<u8> = tags.iter().flat_map(|tag| packet(*tag, *tag, 0, b"")).collect();
    let mut talk = subject.say(&headers).await?;
    for tag in tags {
        let answer = match talk.next_answer("VTX-TCP-006").await {
            // What pipelining there is got this far.
            Err(Stop::Fail { seen, .. }) if tag >= 0x08 => return blame("VTX-ERR-008", seen),
            answer => answer?,
        };
        expect_code(answer, 1)?;
    }
    Ok(())
}

async fn many_headers(subject: Subject) -> Shown {
    for tag in [0x00, 0x01, 0x03, 0x06, 0x07, 0x08, 0x42, 0x7F, 0x80, 0xEF, 0xFF] {
        let requirement = if matches!(tag, 0x08..=0xFD) { "VTX-ERR-008" } else { "VTX-FRM-012" };
        subject.say(&packet(tag, tag, 0, b"")).await?.refused_or(1, requirement).await?;
    }
    Ok(())
}

/// Tags that the server may know.
fn is_extension(tag: u8) -> bool {
    matches!(tag, 0xF0..=0xFD)
}

/// Time between two parts that are to arrive apart. The whole has to arrive within the request deadline.
const APART: Duration = Duration::from_millis(3);

async fn split(subject: Subject, at: usize) -> Shown {
    let request = subject.ask(1, 0);
    let expected = content(&subject).await?;
    let mut talk = subject.talk().await?;
    let (first, rest) = request.split_at(at.min(request.len()));
    let parts: Vec<&[u8]> = if at == 1 { request.chunks(1).collect() } else { vec![first, rest] };
    for (place, part) in parts.into_iter().enumerate() {
        talk.send(part).await;
        if at != 1 || place % 8 == 0 {
            subject.runtime.sleep(APART).await;
        }
    }
    if subject.target.transport == Transport::Quic {
        talk.finish().await;
    }
    let (answer, _) = talk.content_or("VTX-FRM-009").await?;
    ensure(answer.content == expected.content, || "other content".to_owned())
}

async fn split_refused(subject: Subject) -> Shown {
    let mut request = subject.ask(1, 0);
    if let Some(byte) = request.get_mut(69) {
        *byte = b'g';
    }
    subject.say(&request).await?.refused_or(1, "VTX-REQ-003").await?;
    let mut talk = subject.talk().await?;
    for (place, byte) in request.chunks(1).enumerate() {
        talk.send(byte).await;
        if place % 8 == 0 {
            subject.runtime.sleep(APART).await;
        }
    }
    if subject.target.transport == Transport::Quic {
        talk.finish().await;
    }
    talk.refused(1).await.map(drop)
}

async fn too_long_first(subject: Subject) -> Shown {
    let mut talk = subject.say(&packet(1, 0x00, 20_000, b"")).await?;
    talk.refused_or(1, "VTX-FRM-011").await?;
    match talk.end().await {
        Event::Silence => blame("VTX-TCP-007", "the connection stays open"),
        _ => Ok(()),
    }
}

async fn length_first(subject: Subject) -> Shown {
    let request = packet(1, 0x00, 67, &[b'Z'; 10]);
    subject.say(&request).await?.refused_or(1, "VTX-FRM-013").await.map(drop)
}

async fn too_long(subject: Subject, tag: u8, length: u32) -> Shown {
    // Not finished: a server that waits for the value has to be told from one that does not.
    let mut talk = subject.talk().await?;
    talk.send(&packet(1, tag, length, b"")).await;
    talk.refused(1).await.map(drop)
}

async fn bad_length(subject: Subject, tag: u8, length: u32) -> Shown {
    let value = vec![b'0'; length as usize];
    subject.say(&packet(1, tag, length, &value)).await?.refused(1).await.map(drop)
}

async fn at_once(subject: Subject, length: u32) -> Shown {
    let mut talk = subject.talk().await?;
    talk.send(&packet(1, 0x00, length, b"")).await;
    let requirement = if length > 16_384 { "VTX-FRM-011" } else { "VTX-FRM-013" };
    talk.refused_or(1, requirement).await.map(drop)
}

fn seen(stop: Stop) -> String {
    match stop {
        Stop::Fail { seen, .. } | Stop::Skip(seen) => seen,
    }
}

async fn truncated(subject: Subject, after: usize) -> Shown {
    let request = subject.ask(1, 0);
    let mut talk = subject.talk().await?;
    talk.send(request.get(..after).unwrap_or(&request)).await;
    talk.finish().await;
    talk.refused(1).await.map(drop)
}

async fn registered_tags(subject: Subject) -> Shown {
    let answer = content(&subject).await?;
    ensure(matches!(answer.tag, 0x01 | 0x03 | 0x05 | 0x07), || answer.to_string())?;
    let answer = subject.say(&subject.ask_unknown(1)).await?.answer().await?;
    ensure(!matches!(answer.tag, 0x00 | 0x02 | 0x04 | 0x06 | 0x08..=0xEF), || {
        format!("{answer} to a request for an unknown task")
    })
}

async fn reserved_value(subject: Subject) -> Shown {
    let reserved = framed(1, 0x42, &subject.ask(2, 0));
    skipped(subject, reserved).await
}

async fn reserved_largest(subject: Subject) -> Shown {
    let reserved = framed(1, 0xEF, &[0; 16_384]);
    skipped(subject, reserved).await
}

async fn skipped(subject: Subject, reserved: Vec<u8>) -> Shown {
    match subject.target.transport {
        Transport::Tcp => {
            let mut talk = subject.say(&reserved).await?;
            talk.refused_or(1, "VTX-ERR-008").await?;
            talk.send(&subject.ask(3, 0)).await;
            match talk.answer_within(subject.target.waits.soon).await? {
                Some(answer) if answer.is_content() => {}
                Some(answer) => return fail(format!("{answer} to the request after it")),
                None => return blame("VTX-TCP-006", "no answer to the request after it"),
            }
            match talk.end_within(subject.target.waits.quiet).await {
                Event::Bytes(bytes) if !is_answer(&bytes) => {
                    blame("VTX-CNT-017", Event::Bytes(bytes).to_string())
                }
                Event::Bytes(bytes) => fail(format!("{} after that", Event::Bytes(bytes))),
                _ => Ok(()),
            }
        }
        Transport::Quic => {
            let mut talk = subject.say(&reserved).await?;
            talk.refused_or(1, "VTX-ERR-008").await?;
            finished(&mut talk).await
        }
    }
}

async fn nothing_reserved(subject: Subject) -> Shown {
    for said in [subject.ask(1, 0), subject.ask_unknown(1), framed(1, 0x08, b""), framed(1, 0xEE, b"?")] {
        if let Some(answer) = subject.say(&said).await?.answer_within(subject.target.waits.soon).await? {
            ensure(!matches!(answer.tag, 0x08..=0xEF), || answer.to_string())?;
        }
    }
    Ok(())
}

async fn answer_tag(subject: Subject) -> Shown {
    let asked = crate::conformance::draft::download_tag(subject.key().kind);
    let answer = content(&subject).await?;
    ensure(answer.tag == asked + 1, || format!("tag 0x{:02X} in answer to 0x{asked:02X}", answer.tag))
}

async fn extension_tags(subject: Subject) -> Shown {
    for tag in (0xF0..=0xFC).step_by(2) {
        let answer = subject.say(&framed(7, tag, b"")).await?.answer().await;
        let answer = answer.or_else(|stop| blame("VTX-ERR-008", seen(stop)))?;
        ensure(answer.tag == 0xFF || answer.tag == tag + 1, || format!("{answer} to tag 0x{tag:02X}"))?;
    }
    Ok(())
}
