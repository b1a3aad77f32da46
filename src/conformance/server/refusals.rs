//! Requests that are none.

use super::talk::expect_code;
use super::{Subject, cases};
use crate::conformance::case::{Shown, ensure, fail, or_blame};
use crate::conformance::draft::{Draft, error, framed, packet};

cases! {
    "VTX-REQ-003/upper-case" Both Nothing "Error 1 to the task id in upper-case letters" => upper_case;
    "VTX-REQ-003/letter" Both Nothing "Error 1 to a task id with a letter beyond f" => |s| with_byte(s, 69, b'g');
    "VTX-REQ-003/path" Both Nothing "Error 1 to a task id that begins with ../" => path;
    "VTX-REQ-003/nul" Both Nothing "Error 1 to a task id with a zero byte" => |s| with_byte(s, 6, 0);
    "VTX-REQ-003/high" Both Nothing "Error 1 to a task id that is not ASCII" => |s| with_byte(s, 40, 0xE9);
    "VTX-ERR-007" Both Nothing "Error 1 to a packet that does not decode" => malformed;
    "VTX-ERR-007/metadata" Both Nothing "Error 1 to a Content packet with wrong metadata" => malformed_content;
    "VTX-ERR-007/utf8" Both Nothing "Error 1 to an Error packet that is not UTF-8" => |s: Subject| async move {
        refused(s, error(1, 2, b"\xff\xfe")).await
    };
    "VTX-ERR-008/content" Both Nothing "Error 1 to a Content packet" => content_packet;
    "VTX-ERR-008/error" Both Nothing "Error 1 to an Error packet" => |s: Subject| async move {
        refused(s, error(1, 2, b"no")).await
    };
    "VTX-ERR-008/first" Both Nothing "Error 1 to tag 0x08" => |s| refused(s, framed(1, 0x08, b""));
    "VTX-ERR-008/middle" Both Nothing "Error 1 to tag 0x7F" => |s| refused(s, framed(1, 0x7F, b"value"));
    "VTX-ERR-008/last" Both Nothing "Error 1 to tag 0xEF" => |s| refused(s, framed(1, 0xEF, b""));
    "VTX-ERR-009" Both Request "Error 1 to a request that does not complete" => incomplete;
    "VTX-ERR-009/header" Both Request "Error 1 to a header that does not complete" => incomplete_header;
    "VTX-LIM-001/request" Both Request "the request deadline, and not much earlier" => request_deadline;
}

async fn refused(subject: Subject, bytes: Vec<u8>) -> Shown {
    subject.say(&bytes).await?.refused(1).await.map(drop)
}

async fn upper_case(subject: Subject) -> Shown {
    let mut request = subject.ask(1, 0);
    if let Some(id) = request.get_mut(6..70) {
        id.make_ascii_uppercase();
        if !id.iter().any(u8::is_ascii_uppercase) {
            // A task id without any letter: give it one.
            if let Some(first) = id.first_mut() {
                *first = b'A';
            }
        }
    }
    refused(subject, request).await
}

async fn with_byte(subject: Subject, at: usize, byte: u8) -> Shown {
    let mut request = subject.ask(1, 0);
    if let Some(place) = request.get_mut(at) {
        *place = byte;
    }
    refused(subject, request).await
}

async fn path(subject: Subject) -> Shown {
    let mut value = b"../../../../etc/passwd".to_vec();
    value.resize(64, b'0');
    value.extend([0; 4]);
    let tag = crate::conformance::draft::download_tag(subject.key().kind);
    refused(subject, framed(1, tag, &value)).await
}

async fn malformed(subject: Subject) -> Shown {
    refused(subject, packet(9, 0x02, 3, b"abc")).await
}

async fn content_packet(subject: Subject) -> Shown {
    let draft = Draft::new(1, subject.key().piece(0), 0, b"");
    refused(subject, draft.packet()).await
}

async fn malformed_content(subject: Subject) -> Shown {
    let draft = Draft { metadata_length: Some(1), ..Draft::new(1, subject.key().piece(0), 0, b"") };
    refused(subject, draft.packet()).await
}

/// Sends the first bytes of a request and waits for what the server makes of it.
async fn half(subject: &Subject, count: usize) -> Shown<std::time::Duration> {
    let request = subject.ask(1, 0);
    let mut talk = subject.talk().await?;
    let begun = subject.runtime.now();
    talk.send(request.get(..count).unwrap_or(&request)).await;
    let within = subject.target.deadlines.request + subject.target.waits.soon;
    let answer = talk.answer_within(within).await?;
    let took = subject.runtime.now() - begun;
    match answer {
        Some(answer) => expect_code(answer, 1).map(|_| took),
        None => fail(format!("no answer within {within:?}")),
    }
}

async fn incomplete(subject: Subject) -> Shown {
    half(&subject, 40).await.map(drop)
}

async fn incomplete_header(subject: Subject) -> Shown {
    half(&subject, 3).await.map(drop)
}

async fn request_deadline(subject: Subject) -> Shown {
    let took = or_blame(half(&subject, 40).await, "VTX-ERR-009")?;
    ensure(took >= subject.target.deadlines.request.mul_f64(0.8), || format!("Error 1 after {took:?}"))
}
