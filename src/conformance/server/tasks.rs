//! Tasks and pieces: what is answered to a request that is well-formed.

use super::basics::{content, errors, finished};
use super::talk::{Metadata, expect_code};
use super::{Subject, cases};
use crate::conformance::Transport;
use crate::conformance::case::{Shown, Stop, blame, ensure, fail, skip};
use crate::wire::{Algorithm, Digest, DigestClaim, Download};
use bytes::Bytes;

cases! {
    "VTX-REQ-004" Both Nothing "piece number 4294967295 decoded: Error 2, not Error 1" => highest_number;
    "VTX-REQ-005" Both Nothing "as many pieces as length and piece length make" => number_of_pieces;
    "VTX-REQ-006" Both Nothing "one empty piece for an empty task" => empty_task;
    "VTX-REQ-007" Both Nothing "each piece with its length and its bytes" => each_piece;
    "VTX-REQ-010" Both Nothing "exactly one answer to a request" => one_answer;
    "VTX-REQ-011" Both Nothing "the content of the piece" => right_content;
    "VTX-REQ-012" Both Nothing "Error 2 for a task that nobody has" => |s: Subject| async move {
        s.say(&s.ask_unknown(1)).await?.refused(2).await.map(drop)
    };
    "VTX-REQ-013" Both Nothing "Error 2 for a piece that the task does not have" => |s: Subject| async move {
        s.say(&s.ask(1, u32::MAX)).await?.refused(2).await.map(drop)
    };
    "VTX-REQ-014" Both Nothing "Error 2 for the task under another kind" => other_kinds;
    "VTX-REQ-015" Both Nothing "Error 2 for a piece that is not held" => absent;
    "VTX-CNT-001" Both Nothing "metadata with the fields of the table" => |s| async move { content(&s).await.map(drop) };
    "VTX-CNT-002" Both Nothing "a metadata length of Length minus 4" => |s| async move { content(&s).await.map(drop) };
    "VTX-CNT-005" Both Nothing "nothing after created at" => |s| metadata(s, |m| m.appended == 0);
    "VTX-CNT-006" Both Nothing "the number that was asked for" => right_numbers;
    "VTX-CNT-008" Both Nothing "the offset of the piece in the task" => right_offsets;
    "VTX-CNT-012" Both Nothing "a parent id of at most 1024 bytes" => |s| metadata(s, |m| m.parent_id.len() <= 1024);
    "VTX-CNT-014" Both Nothing "traffic type 1" => |s| metadata(s, |m| m.traffic_type == 1);
    "VTX-CNT-017" Both Nothing "content directly after the packet, and as much as it says" => exact_content;
    "VTX-DIG-001" Both Nothing "algorithm, colon and value" => digest_form;
    "VTX-DIG-002" Both Nothing "a digest of all of the content" => digest_is_there;
    "VTX-DIG-003" Both Nothing "CRC-32/ISO-HDLC" => crc;
    "VTX-DIG-004" Both Nothing "a crc32 in decimal, without leading zeros" => decimal;
    "VTX-DIG-005" Both Nothing "hashes in lower-case hexadecimal, at full length" => hexadecimal;
    "VTX-ERR-001" Both Nothing "the code first, then the message" => error_layout;
    "VTX-ERR-003" Both Nothing "error messages of at most 1024 bytes" => error_length;
    "VTX-ERR-004" Both Nothing "error codes 1, 2 and 3 only" => error_codes;
    "VTX-ERR-011" Both Nothing "Error 3 for a damaged piece" => damaged;
    "VTX-SEC-009" Both Nothing "no path in an error message" => no_paths;
}

async fn highest_number(subject: Subject) -> Shown {
    let answer = subject.say(&subject.ask(1, u32::MAX)).await?.answer().await?;
    match answer.error_code() {
        Some(3) => blame("VTX-REQ-013", answer.to_string()),
        _ => expect_code(answer, 2).map(drop),
    }
}

async fn number_of_pieces(subject: Subject) -> Shown {
    let (_, division) = subject.oracle()?;
    let last = u32::try_from(division.pieces() - 1).unwrap_or(u32::MAX);
    subject.say(&subject.ask(1, last)).await?.content_or("VTX-REQ-005").await?;
    if let Some(beyond) = last.checked_add(1) {
        let answer = subject.say(&subject.ask(1, beyond)).await?.answer().await?;
        ensure(!answer.is_content(), || format!("{answer} for piece {beyond} of {beyond}"))?;
    }
    Ok(())
}

async fn empty_task(subject: Subject) -> Shown {
    let Some(key) = subject.target.fixture.empty else { return skip("needs an empty task") };
    let (answer, metadata) = subject.say(&key.piece(0).encode(1)).await?.content_or("VTX-REQ-006").await?;
    ensure(metadata.length == 0, || answer.to_string())?;
    let next = subject.say(&key.piece(1).encode(1)).await?.answer().await?;
    ensure(next.error_code() == Some(2), || format!("{next} for piece 1"))
}

/// The pieces that are looked at: the first few and the last.
fn looked_at(pieces: u64) -> impl Iterator<Item = u32> {
    let last = u32::try_from(pieces - 1).unwrap_or(u32::MAX);
    (0..last.min(4)).chain([last])
}

async fn each_piece(subject: Subject) -> Shown {
    let (whole, division) = subject.oracle()?;
    for number in looked_at(division.pieces()) {
        let Some(span) = division.piece(number) else { continue };
        let (answer, metadata) =
            subject.say(&subject.ask(1, number)).await?.content_or("VTX-REQ-011").await?;
        let start = usize::try_from(span.offset).unwrap_or(usize::MAX);
        let expected = whole.slice(start..start + span.length.get() as usize);
        ensure(metadata.length == u64::from(span.length), || {
            format!("piece {number} with {} bytes, not {}", metadata.length, span.length)
        })?;
        if answer.content != expected {
            return blame("VTX-REQ-011", format!("other content of piece {number}"));
        }
    }
    Ok(())
}

async fn one_answer(subject: Subject) -> Shown {
    for said in [subject.ask(1, 0), subject.ask_unknown(2)] {
        let mut talk = subject.say(&said).await?;
        talk.answer().await?;
        let second = talk.answer_within(subject.target.waits.quiet).await;
        if let Ok(Some(second)) = second
            && (second.is_content() || second.tag == 0xFF)
        {
            return fail(format!("a second answer: {second}"));
        }
    }
    Ok(())
}

async fn right_content(subject: Subject) -> Shown {
    let answer = content(&subject).await?;
    let Ok((whole, division)) = subject.oracle() else { return Ok(()) };
    let length = division.piece(0).map_or(0, |span| span.length.get() as usize);
    if answer.content.len() != length {
        return blame("VTX-REQ-007", format!("piece 0 has {} bytes, not {length}", answer.content.len()));
    }
    ensure(answer.content == whole.slice(..length), || "other content".to_owned())
}

async fn other_kinds(subject: Subject) -> Shown {
    for kind in subject.other_kinds() {
        let request = Download { kind, ..subject.key().piece(0) }.encode(1);
        subject.say(&request).await?.refused(2).await?;
    }
    Ok(())
}

async fn absent(subject: Subject) -> Shown {
    let Some(absent) = subject.target.fixture.absent else { return skip("needs a piece that is not held") };
    subject.say(&absent.encode(1)).await?.refused(2).await.map(drop)
}

async fn metadata(subject: Subject, holds: fn(&Metadata) -> bool) -> Shown {
    let (_, metadata) = subject.say(&subject.ask(1, 0)).await?.content().await?;
    ensure(holds(&metadata), || {
        format!(
            "{} bytes after created at, a parent id of {} bytes, traffic type {}",
            metadata.appended,
            metadata.parent_id.len(),
            metadata.traffic_type
        )
    })
}

async fn right_numbers(subject: Subject) -> Shown {
    let pieces = subject.oracle().map_or(1, |(_, division)| division.pieces());
    for number in looked_at(pieces) {
        let (_, metadata) = subject.say(&subject.ask(1, number)).await?.content().await?;
        ensure(metadata.number == number, || format!("{} in answer to {number}", metadata.number))?;
    }
    Ok(())
}

async fn right_offsets(subject: Subject) -> Shown {
    let (_, division) = subject.oracle()?;
    for number in looked_at(division.pieces()) {
        let (_, metadata) = subject.say(&subject.ask(1, number)).await?.content().await?;
        let offset = division.piece(number).map_or(0, |span| span.offset);
        ensure(metadata.offset == offset, || {
            format!("{} for piece {number}, not {offset}", metadata.offset)
        })?;
    }
    Ok(())
}

async fn exact_content(subject: Subject) -> Shown {
    match subject.target.transport {
        Transport::Tcp => {
            let mut talk = subject.say(&[subject.ask(1, 0), subject.ask(2, 0)].concat()).await?;
            let first = talk.content().await?.0;
            // Were the content longer than it says, its rest would stand here.
            let second = match talk.next_answer("VTX-TCP-004").await {
                Err(Stop::Fail { requirement: Some("VTX-FRM-001" | "VTX-FRM-004"), .. }) => {
                    return fail("no answer directly after the content");
                }
                second => second?,
            };
            ensure(second.content == first.content, || format!("{second} after the content"))
        }
        Transport::Quic => {
            let mut talk = subject.say(&subject.ask(1, 0)).await?;
            talk.content().await?;
            finished(&mut talk).await
        }
    }
}

/// The digest of piece 0, as sent, and the content.
async fn digest(subject: &Subject) -> Shown<(String, Bytes)> {
    let (answer, metadata) = subject.say(&subject.ask(1, 0)).await?.content().await?;
    Ok((String::from_utf8_lossy(&metadata.digest).into_owned(), answer.content))
}

/// Algorithm and value; without a digest, VTX-DIG-002 is broken, without a colon, VTX-DIG-001.
async fn parts(subject: &Subject) -> Shown<(String, String, Bytes)> {
    let (text, content) = digest(subject).await?;
    if text.is_empty() {
        return blame("VTX-DIG-002", "an empty digest");
    }
    match text.split_once(':') {
        Some((algorithm, value)) => Ok((algorithm.to_owned(), value.to_owned(), content)),
        None => blame("VTX-DIG-001", format!("the digest {text:?}")),
    }
}

async fn digest_form(subject: Subject) -> Shown {
    let (algorithm, value, _) = parts(&subject).await?;
    let known = Algorithm::ALL.iter().any(|known| known.name() == algorithm);
    let plain = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_alphanumeric());
    ensure(known && plain, || format!("the digest {algorithm:?}:{value:?}"))
}

async fn digest_is_there(subject: Subject) -> Shown {
    let (algorithm, value, content) = parts(&subject).await?;
    let text = format!("{algorithm}:{value}");
    let Ok(claim) = DigestClaim::parse(&text) else {
        return blame("VTX-DIG-001", format!("the digest {text:?}"));
    };
    if claim.matches(&Digest::of(claim.algorithm(), &content)) {
        return Ok(());
    }
    let seen = format!("{text}, the content has {}", Digest::of(claim.algorithm(), &content));
    if claim.algorithm() == Algorithm::Crc32 { blame("VTX-DIG-003", seen) } else { fail(seen) }
}

async fn crc(subject: Subject) -> Shown {
    let (algorithm, value, content) = parts(&subject).await?;
    if algorithm != "crc32" {
        return skip(format!("this server sends {algorithm}"));
    }
    let text = format!("crc32:{value}");
    let computed = Digest::of(Algorithm::Crc32, &content);
    let matches = DigestClaim::parse(&text).is_ok_and(|claim| claim.matches(&computed));
    ensure(matches, || format!("{text}, the content has {computed}"))
}

async fn decimal(subject: Subject) -> Shown {
    let (algorithm, value, content) = parts(&subject).await?;
    if algorithm != "crc32" {
        return skip(format!("this server sends {algorithm}"));
    }
    let Digest::Crc32(sum) = Digest::of(Algorithm::Crc32, &content) else { return Ok(()) };
    // Eight digits may be either; where they are the sum in hexadecimal, they are not the decimal one.
    let hexadecimal =
        [format!("{sum:08x}"), format!("{sum:08X}")].contains(&value) && value != sum.to_string();
    let canonical = value.parse::<u32>().is_ok_and(|number| number.to_string() == value);
    ensure(canonical && !hexadecimal, || format!("crc32:{value}"))
}

async fn hexadecimal(subject: Subject) -> Shown {
    let (algorithm, value, _) = parts(&subject).await?;
    let digits = match algorithm.as_str() {
        "sha256" => 64,
        "sha512" => 128,
        _ => return skip(format!("this server sends {algorithm}")),
    };
    let lower = value.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    ensure(value.len() == digits && lower, || format!("{algorithm}:{value}"))
}

async fn error_layout(subject: Subject) -> Shown {
    let answer = subject.say(&subject.ask_unknown(1)).await?.answer().await?;
    ensure(answer.is_content() || answer.error_code().is_some_and(|code| code < b' '), || answer.to_string())
}

async fn error_length(subject: Subject) -> Shown {
    for error in errors(&subject).await? {
        ensure(error.error_message().len() <= 1024, || {
            format!("a message of {} bytes", error.error_message().len())
        })?;
    }
    Ok(())
}

async fn error_codes(subject: Subject) -> Shown {
    for error in errors(&subject).await? {
        let code = error.error_code();
        if code >= Some(b' ') && matches!(error.value.last(), Some(1..=3)) {
            return blame("VTX-ERR-001", error.to_string());
        }
        ensure(matches!(code, Some(1..=3)), || error.to_string())?;
    }
    Ok(())
}

async fn damaged(subject: Subject) -> Shown {
    let Some(damaged) = subject.target.fixture.damaged else { return skip("needs a damaged piece") };
    subject.say(&damaged.encode(1)).await?.refused(3).await.map(drop)
}

async fn no_paths(subject: Subject) -> Shown {
    for error in errors(&subject).await? {
        let message = String::from_utf8_lossy(error.error_message()).into_owned();
        let is_path = |word: &str| {
            let word = word.trim_start_matches(['"', '\'', '(', '`']);
            word.matches('/').count() >= 2 && word.starts_with(['/', '.', '~']) || word.contains(":\\")
        };
        ensure(!message.split_whitespace().any(is_path), || error.to_string())?;
    }
    Ok(())
}
