//! Download packets.

use super::super::model::{Layout, Vector};
use super::{TASK, download};

pub(super) fn downloads() -> Vec<Vector> {
    let layout = "FRM-001 FRM-002 FRM-003 FRM-004 TAG-001 REQ-001 REQ-002 REQ-004";
    let zeros = "0".repeat(64);
    let effs = "f".repeat(64);
    vec![
        download(0, 0x00, TASK, 0).vector(
            "pkt-download-001",
            "The first piece of a task",
            layout,
            "",
            "valid",
        ),
        download(1, 0x02, TASK, 1).vector("pkt-download-002", "A persistent piece", layout, "", "valid"),
        download(2, 0x04, TASK, 258).vector(
            "pkt-download-003",
            "A persistent cache piece; the number shows the byte order",
            layout,
            "",
            "valid",
        ),
        download(3, 0x06, TASK, 66051).vector(
            "pkt-download-004",
            "A cache piece. No deployed server answers it",
            layout,
            "deployed-differs",
            "valid",
        ),
        download(255, 0x00, TASK, u32::MAX).vector(
            "pkt-download-005",
            "The largest id and the largest piece number",
            layout,
            "limit",
            "valid",
        ),
        download(7, 0x00, &zeros, 2_147_483_648).vector(
            "pkt-download-006",
            "A task id of zeros; a number with the highest bit alone",
            layout,
            "",
            "valid",
        ),
        download(7, 0x00, &effs, 16_777_215).vector(
            "pkt-download-007",
            "A task id of the last letter of the alphabet",
            layout,
            "",
            "valid",
        ),
    ]
}

pub(super) fn bad_downloads() -> Vec<Vector> {
    let task = |at: usize, byte: u8| {
        let mut bytes = TASK.as_bytes().to_vec();
        bytes[at] = byte;
        Layout::header(7, 0x00, 68).junk(&bytes).junk(&[0, 0, 0, 1])
    };
    let bad_task = "REQ-002 REQ-003 ERR-014";
    let cut = "FRM-014 ERR-014";
    let length = "FRM-012 FRM-013 ERR-014";
    let too_long = "FRM-011 FRM-013 FRM-016 ERR-014";
    let all = download(7, 0x00, TASK, 1).bytes.expand();
    let first = |count: usize| Layout::default().junk(&all[..count]);
    vec![
        download(7, 0x00, &TASK.to_uppercase(), 1).vector(
            "pkt-download-101",
            "Upper-case letters. Deployed servers look it up",
            bad_task,
            "deployed-differs",
            "bad-task-id",
        ),
        task(63, b'g').vector(
            "pkt-download-102",
            "The letter after f, at the end",
            bad_task,
            "",
            "bad-task-id",
        ),
        task(0, b'/').vector("pkt-download-103", "The byte before 0", bad_task, "", "bad-task-id"),
        task(0, b':').vector("pkt-download-104", "The byte after 9", bad_task, "", "bad-task-id"),
        task(31, b'`').vector("pkt-download-105", "The byte before a", bad_task, "", "bad-task-id"),
        task(63, 0).vector("pkt-download-106", "A zero byte at the end", bad_task, "", "bad-task-id"),
        task(10, 0xFF).vector("pkt-download-107", "Not even UTF-8", bad_task, "", "bad-task-id"),
        task(10, b' ').vector("pkt-download-108", "A space", bad_task, "", "bad-task-id"),
        first(0).vector("pkt-download-111", "No byte at all", cut, "", "truncated"),
        first(1).vector("pkt-download-112", "The packet id alone", cut, "", "truncated"),
        first(2).vector("pkt-download-113", "Packet id and tag", cut, "", "truncated"),
        first(5).vector("pkt-download-114", "A header that lacks its last byte", cut, "limit", "truncated"),
        first(6).vector("pkt-download-115", "A header without its value", cut, "limit", "truncated"),
        first(70).vector(
            "pkt-download-116",
            "A value that ends before the piece number",
            cut,
            "",
            "truncated",
        ),
        first(73).vector("pkt-download-117", "A value that lacks its last byte", cut, "limit", "truncated"),
        download(7, 0x00, TASK, 1).junk(&[0]).vector(
            "pkt-download-118",
            "One byte after the packet",
            "FRM-015 ERR-014",
            "limit",
            "trailing-bytes",
        ),
        download(7, 0x00, TASK, 1).junk(&all).vector(
            "pkt-download-119",
            "Two packets where one should be",
            "FRM-015 ERR-014",
            "",
            "trailing-bytes",
        ),
        Layout::header(7, 0x00, 67).junk(&all[6..73]).vector(
            "pkt-download-121",
            "One byte less than a request has",
            length,
            "limit",
            "bad-length",
        ),
        Layout::header(7, 0x00, 69).junk(&all[6..]).junk(&[0]).vector(
            "pkt-download-122",
            "One byte more than a request has",
            length,
            "limit",
            "bad-length",
        ),
        Layout::header(7, 0x02, 0).vector(
            "pkt-download-123",
            "An empty value",
            length,
            "early",
            "bad-length",
        ),
        Layout::header(1, 0x00, 10).junk(&TASK.as_bytes()[..10]).vector(
            "pkt-download-124",
            "The example of an older published text",
            length,
            "",
            "bad-length",
        ),
        Layout::header(1, 0x06, 16_384).vector(
            "pkt-download-125",
            "The largest Length, for a tag that does not allow it, before a byte of the value",
            length,
            "early limit",
            "bad-length",
        ),
        Layout::header(1, 0x00, 16_385).vector(
            "pkt-download-131",
            "One above the largest Length",
            too_long,
            "early limit",
            "too-long",
        ),
        Layout::header(1, 0x00, u32::MAX).vector(
            "pkt-download-132",
            "4 GiB are declared. Deployed servers reserve them",
            too_long,
            "early limit deployed-differs",
            "too-long",
        ),
        Layout::default().junk(&[7, 0x00, 68, 0, 0, 0]).junk(&all[6..]).vector(
            "pkt-download-133",
            "Length in the wrong byte order",
            "FRM-003 FRM-011",
            "early",
            "too-long",
        ),
    ]
}
