//! Answers that no client may take.

use super::accepts::with;
use super::{Asked, Reply, Step, cases, say};
use crate::conformance::draft::{error, framed, packet};
use crate::wire::{Algorithm, Digest};

cases! {
    "VTX-FRM-010/digest-utf8" Both Nothing 1/1 "a digest that is not UTF-8 rejected" => |asked| with(asked, |draft| draft.digest = b"crc32:\xff\xfe".to_vec()), |seen| seen.refused();
    "VTX-FRM-010/parent-utf8" Both Nothing 1/1 "a parent id that is not UTF-8 rejected" => |asked| with(asked, |draft| draft.parent_id = vec![0xC3, 0x28]), |seen| seen.refused();
    "VTX-FRM-011/answer" Both Nothing 1/1 "a Length above 16384 rejected" => |asked| with(asked, |draft| draft.appended = vec![0; 17_000]), |seen| seen.refused();
    "VTX-FRM-012/answer" Both Nothing 1/1 "a Content packet with a Length of 48 rejected" => |asked| {
        let mut bytes = packet(asked.right.id, 0x01, 48, &[0; 48]);
        bytes.extend(asked.right.content);
        say(bytes)
    }, |seen| seen.refused();
    "VTX-FRM-013/answer" Both Nothing 1/1 "a Length above 16384 rejected before the value is there" => |asked| {
        vec![Step::Send(packet(asked.right.id, 0x01, 20_000, b"")), Step::Hold]
    }, |seen| {
        seen.refused()?;
        if seen.first()?.stopped.is_some() { seen.stopped_with(2) } else { Ok(()) }
    };
    "VTX-FRM-014/header" Both Nothing 1/1 "an answer that ends within its header rejected" => |asked| cut(&asked, 4), |seen| seen.refused();
    "VTX-FRM-014/value" Both Nothing 1/1 "an answer that ends within its metadata rejected" => |asked| cut(&asked, 30), |seen| seen.refused();
    "VTX-CNT-003/longer" Both Nothing 1/1 "a metadata length above Length minus 4 rejected" => |asked| {
        let length = metadata_length(&asked);
        with(asked, |draft| draft.metadata_length = Some(length + 1))
    }, |seen| seen.refused();
    "VTX-CNT-003/shorter" Both Nothing 1/1 "a metadata length below Length minus 4 rejected" => |asked| {
        let length = metadata_length(&asked);
        with(asked, |draft| draft.metadata_length = Some(length - 1))
    }, |seen| seen.refused();
    "VTX-CNT-003/digest" Both Nothing 1/1 "a digest that does not fit rejected" => |asked| with(asked, |draft| draft.digest_length = Some(250)), |seen| seen.refused();
    "VTX-CNT-003/parent" Both Nothing 1/1 "a parent id that does not fit rejected" => |asked| with(asked, |draft| draft.parent_id_length = Some(900)), |seen| seen.refused();
    "VTX-CNT-007" Both Nothing 1/1 "another piece's number rejected" => |asked| with(asked, |draft| draft.number += 1), |seen| seen.refused();
    "VTX-CNT-010" Both Nothing 1/1 "a piece of more than 1 GiB rejected" => |asked| with(asked, |draft| draft.piece_length = Some((1 << 30) + 1)), |seen| seen.refused();
    "VTX-CNT-011/shorter" Both Nothing 2/1 "a piece that is shorter than it should be rejected" => |asked| resized(asked, 100), |seen| seen.refused();
    "VTX-CNT-011/longer" Both Nothing 1/1 "a piece that is longer than it should be rejected" => |asked| resized(asked, 4000), |seen| seen.refused();
    "VTX-CNT-013/digest" Both Nothing 1/1 "a digest of 257 bytes rejected" => |asked| {
        with(asked, |draft| {
            let zeros = 257 - draft.digest.len();
            draft.digest.splice(6..6, vec![b'0'; zeros]);
        })
    }, |seen| seen.refused();
    "VTX-CNT-013/parent" Both Nothing 1/1 "a parent id of 1025 bytes rejected" => |asked| with(asked, |draft| draft.parent_id = vec![b'p'; 1025]), |seen| seen.refused();
    "VTX-CNT-019" Both Nothing 1/1 "content that ends early rejected" => |asked| {
        let length = asked.right.encode().len();
        cut(&asked, length - 1)
    }, |seen| seen.refused();
    "VTX-CNT-020" Both Nothing 1/1 "content of another kind rejected" => |asked| with(asked, |draft| draft.tag = 0x03), |seen| seen.refused();
    "VTX-CNT-021/reserved" Both Nothing 1/1 "a reserved tag in place of an answer rejected" => |asked| {
        say([framed(asked.right.id, 0x42, b"?"), asked.right.encode()].concat())
    }, |seen| seen.refused();
    "VTX-CNT-021/download" Both Nothing 1/1 "a Download packet in place of an answer rejected" => |asked| {
        say([framed(asked.right.id, 0x00, &[b'a'; 68]), asked.right.encode()].concat())
    }, |seen| seen.refused();
    "VTX-DIG-010/no-colon" Both Nothing 1/1 "a digest without a colon rejected" => |asked| digest(asked, "crc32"), |seen| seen.refused();
    "VTX-DIG-010/sign" Both Nothing 1/1 "a crc32 with a sign rejected" => |asked| {
        let text = format!("crc32:+{}", crc32fast::hash(&asked.right.content));
        digest(asked, &text)
    }, |seen| seen.refused();
    "VTX-DIG-010/space" Both Nothing 1/1 "a crc32 with white space rejected" => |asked| {
        let text = format!("crc32: {}", crc32fast::hash(&asked.right.content));
        digest(asked, &text)
    }, |seen| seen.refused();
    "VTX-DIG-010/range" Both Nothing 1/1 "a crc32 of more than 32 bits rejected" => |asked| {
        let text = format!("crc32:{}", u64::from(crc32fast::hash(&asked.right.content)) + (1 << 32));
        digest(asked, &text)
    }, |seen| seen.refused();
    "VTX-DIG-010/hash" Both Nothing 1/1 "a sha256 that is cut rejected" => |asked| {
        let text = Digest::of(Algorithm::Sha256, &asked.right.content).to_string();
        digest(asked, text.get(..70).unwrap_or_default())
    }, |seen| seen.refused();
    "VTX-DIG-011" Both Nothing 1/1 "an empty digest rejected" => |asked| digest(asked, ""), |seen| seen.refused();
    "VTX-DIG-012/md5" Both Nothing 1/1 "an unknown algorithm rejected" => |asked| digest(asked, "md5:d41d8cd98f00b204e9800998ecf8427e"), |seen| seen.refused();
    "VTX-DIG-012/case" Both Nothing 1/1 "an algorithm in upper-case letters rejected" => |asked| {
        let text = format!("CRC32:{}", crc32fast::hash(&asked.right.content));
        digest(asked, &text)
    }, |seen| seen.refused();
    "VTX-DIG-014" Both Nothing 2/1 "content that differs in its last bit rejected" => |asked| corrupt(asked), |seen| seen.refused();
    "VTX-DIG-015/sha256" Both Nothing 1/1 "content that does not match its sha256 rejected" => |asked| {
        let other = Digest::of(Algorithm::Sha256, b"other").to_string();
        digest(asked, &other)
    }, |seen| seen.refused();
    "VTX-ERR-002" Both Nothing 1/1 "an Error packet without a message taken for a failure" => |asked| say(error(asked.right.id, 2, b"")), |seen| seen.refused();
    "VTX-ERR-005/reserved" Both Nothing 1/1 "error code 200 taken for a failure" => |asked| say(error(asked.right.id, 200, b"later")), |seen| seen.refused();
    "VTX-ERR-005/unknown" Both Nothing 1/1 "error code 0 taken for a failure" => |asked| say(error(asked.right.id, 0, b"unknown")), |seen| seen.refused();
    "VTX-CLS-007" Both Nothing 1/1 "Close in place of an answer taken for a failure" => |asked| say(framed(asked.right.id, 0xFE, b"")), |seen| seen.refused();
    "VTX-CLS-002/answer" Both Nothing 1/1 "Close with a value taken for Close" => |asked| say(framed(asked.right.id, 0xFE, b"value")), |seen| {
        seen.refused()?;
        seen.first().map(drop)
    };
}

fn metadata_length(asked: &Asked) -> u32 {
    u32::try_from(asked.right.packet().len()).unwrap_or_default() - 10
}

/// The first bytes of the right answer, and the end.
fn cut(asked: &Asked, after: usize) -> Reply {
    let bytes = asked.right.encode();
    vec![Step::Send(bytes.get(..after).unwrap_or_default().to_vec()), Step::Fin]
}

fn digest(asked: Asked, text: &str) -> Reply {
    with(asked, |draft| draft.digest = text.into())
}

/// Other content, with a digest that matches it.
fn resized(asked: Asked, length: usize) -> Reply {
    with(asked, |draft| {
        draft.content.resize(length, 0);
        draft.digest = Digest::of(Algorithm::Crc32, &draft.content).to_string().into_bytes();
    })
}

/// The right answer with one bit flipped.
pub(super) fn corrupt(asked: Asked) -> Reply {
    with(asked, |draft| {
        if let Some(last) = draft.content.last_mut() {
            *last ^= 1;
        }
    })
}
