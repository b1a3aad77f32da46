//! Answers that are right, odd as they may look.

use super::{Asked, Reply, Step, cases, right, say};
use crate::conformance::Draft;
use crate::wire::{Algorithm, Digest};

cases! {
    "VTX-REQ-007" Both Nothing 5/1 "five pieces, each at its place" => right, |seen| seen.taken();
    "VTX-REQ-006" Both Nothing 1/1 "a task of one piece" => right, |seen| seen.taken();
    "VTX-FRM-007" Both Nothing 2/1 "an answer with another packet id taken" => |asked| {
        let id = !asked.right.id;
        with(asked, |draft| draft.id = id)
    }, |seen| seen.taken();
    "VTX-FRM-009/bytes" Both Nothing 1/1 "an answer that arrives a byte at a time taken" => |asked| trickle(&asked, 1), |seen| seen.taken();
    "VTX-FRM-009/sevens" Both Nothing 2/1 "an answer that arrives seven bytes at a time taken" => |asked| trickle(&asked, 7), |seen| seen.taken();
    "VTX-CNT-004/few" Both Nothing 2/1 "bytes after created at ignored" => |asked| {
        with(asked, |draft| draft.appended = b"later".to_vec())
    }, |seen| seen.taken();
    "VTX-CNT-004/many" Both Nothing 1/1 "16000 bytes after created at ignored" => |asked| {
        with(asked, |draft| draft.appended = vec![0xFF; 16_000])
    }, |seen| seen.taken();
    "VTX-CNT-009/zero" Both Nothing 3/1 "the place of a piece derived, whatever the offset says: 0" => |asked| {
        with(asked, |draft| draft.offset = 0)
    }, |seen| seen.taken();
    "VTX-CNT-009/far" Both Nothing 3/1 "the place of a piece derived, whatever the offset says: 2^64 - 1" => |asked| {
        with(asked, |draft| draft.offset = u64::MAX)
    }, |seen| seen.taken();
    "VTX-CNT-013/parent-1024" Both Nothing 1/1 "a parent id of 1024 bytes taken" => |asked| {
        with(asked, |draft| draft.parent_id = vec![b'p'; 1024])
    }, |seen| seen.taken();
    "VTX-CNT-013/parent-empty" Both Nothing 1/1 "an empty parent id taken" => |asked| {
        with(asked, |draft| draft.parent_id.clear())
    }, |seen| seen.taken();
    "VTX-CNT-016/traffic" Both Nothing 1/1 "traffic type 255 taken" => |asked| with(asked, |draft| draft.traffic_type = 255), |seen| seen.taken();
    "VTX-CNT-016/cost" Both Nothing 1/1 "a cost of 2^64 - 1 seconds taken" => |asked| with(asked, |draft| draft.cost = u64::MAX), |seen| seen.taken();
    "VTX-CNT-016/before-1970" Both Nothing 1/1 "created at -1 taken" => |asked| with(asked, |draft| draft.created_at = -1), |seen| seen.taken();
    "VTX-CNT-016/first" Both Nothing 1/1 "created at -2^63 taken" => |asked| with(asked, |draft| draft.created_at = i64::MIN), |seen| seen.taken();
    "VTX-CNT-016/last" Both Nothing 1/1 "created at 2^63 - 1 taken" => |asked| with(asked, |draft| draft.created_at = i64::MAX), |seen| seen.taken();
    "VTX-DIG-006" Both Nothing 1/1 "a crc32 with leading zeros taken" => |asked| crc(asked, |sum| format!("{sum:012}")), |seen| seen.taken();
    "VTX-DIG-007/lower" Both Nothing 3/1 "a crc32 in lower-case hexadecimal taken" => |asked| crc(asked, |sum| format!("{sum:08x}")), |seen| seen.taken();
    "VTX-DIG-007/upper" Both Nothing 3/1 "a crc32 in upper-case hexadecimal taken" => |asked| crc(asked, |sum| format!("{sum:08X}")), |seen| seen.taken();
    "VTX-DIG-008/decimal" Both Nothing 1/1 "eight digits that match in decimal taken" => |asked| crc(asked, |sum| format!("{sum}")), |seen| seen.taken();
    "VTX-DIG-008/hexadecimal" Both Nothing 1/1 "eight digits that match in hexadecimal taken" => |asked| crc(asked, |sum| format!("{sum:08x}")), |seen| seen.taken();
    "VTX-DIG-009/sha256" Both Nothing 1/1 "a sha256 taken" => |asked| hash(asked, Algorithm::Sha256, false), |seen| seen.taken();
    "VTX-DIG-009/sha256-upper" Both Nothing 1/1 "a sha256 in upper-case letters taken" => |asked| hash(asked, Algorithm::Sha256, true), |seen| seen.taken();
    "VTX-DIG-009/sha512" Both Nothing 1/1 "a sha512 taken" => |asked| hash(asked, Algorithm::Sha512, false), |seen| seen.taken();
    "VTX-QUC-017" Quic Nothing 1/1 "the answer taken, although STOP_SENDING comes before the request is sent" => right, |seen| seen.taken();
    "VTX-QUC-028/late" Quic Nothing 1/1 "an answer taken whose FIN comes late" => |asked| {
        vec![Step::Send(asked.right.encode()), Step::Pause(asked.waits.quiet), Step::Fin]
    }, |seen| seen.taken();
}

/// The case whose server stops requests before they are whole.
pub(super) const HASTY: &str = "VTX-QUC-017";

/// The right answer, changed.
pub(super) fn with(asked: Asked, change: impl FnOnce(&mut Draft)) -> Reply {
    let mut draft = asked.right;
    change(&mut draft);
    say(draft.encode())
}

fn trickle(asked: &Asked, size: usize) -> Reply {
    vec![Step::Trickle(asked.right.encode(), size), Step::Done]
}

/// The right answer, with its CRC written in another way.
fn crc(asked: Asked, text: fn(u32) -> String) -> Reply {
    let sum = crc32fast::hash(&asked.right.content);
    with(asked, |draft| draft.digest = format!("crc32:{}", text(sum)).into_bytes())
}

fn hash(asked: Asked, algorithm: Algorithm, upper: bool) -> Reply {
    let text = Digest::of(algorithm, &asked.right.content).to_string();
    let (name, value) = text.split_once(':').unwrap_or_default();
    let value = if upper { value.to_ascii_uppercase() } else { value.to_owned() };
    with(asked, |draft| draft.digest = format!("{name}:{value}").into_bytes())
}
