//! Commented dumps of each message, and of what is malformed: what `vortex decode` shows, and what documents quote.

use super::build::{self, RawContent};
use vortex_p2p::wire::annotate;

const TASK_ID: &[u8; 64] = b"4b0b7d3e0f0a5ad1a0d4a5b6a6f8b4d2c9e31f7a2b8c5d6e7f8091a2b3c4d5e6";

fn dump(name: &str, bytes: &[u8]) {
    insta::assert_snapshot!(name, annotate(bytes).to_string());
}

#[test]
fn messages() {
    dump("download_piece", &build::download(7, 0x00, TASK_ID, 3));
    dump("download_cache_piece", &build::download(0xFF, 0x06, TASK_ID, u32::MAX));
    dump("piece_content", &RawContent::default().bytes());
    let sha512 = format!("sha512:{}", "5a".repeat(64)).into_bytes();
    let raw = RawContent { tag: 0x03, digest: sha512, parent_id: Vec::new(), ..RawContent::default() };
    dump("piece_content_sha512", &RawContent { created_at: -1, appended: vec![0xEE; 3], ..raw }.bytes());
    dump("reserved", &build::packet(1, 0xF0, b"\x01\x02"));
    dump("close", &build::packet(0, 0xFE, &[]));
    dump("error", &build::error(7, 2, "no such task: \u{1b}[2J".as_bytes()));
    dump("error_without_message", &build::error(7, 1, b""));
}

#[test]
fn malformed() {
    dump("truncated_header", &[7, 0, 0, 0]);
    dump("truncated_value", &build::download(7, 0x00, TASK_ID, 3)[..72]);
    dump("too_long", &build::packet_of(7, 0x00, u32::MAX, b"GET / HTTP/1.1"));
    dump("bad_length", &build::packet(7, 0x00, &TASK_ID[..10]));
    dump("bad_task_id", &build::download(7, 0x00, &TASK_ID.to_ascii_uppercase(), 3));
    dump("bad_metadata", &RawContent { parent_id_length: Some(5000), ..RawContent::default() }.bytes());
    dump("bad_piece_length", &RawContent { piece_length: 1 << 32, ..RawContent::default() }.bytes());
    dump("field_too_long", &RawContent { digest: vec![b'd'; 300], ..RawContent::default() }.bytes());
    dump("not_utf8", &build::error(7, 1, b"caf\xE9"));
    dump("trailing_bytes", &[build::packet(0, 0xFE, &[]), vec![1, 2, 3]].concat());
}
