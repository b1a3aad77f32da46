//! The page of the book that shows a whole exchange byte by byte: made by the codec, so that it cannot be wrong alone.

use vortex_p2p::wire::{
    Algorithm, Bounded, Digest, Division, Download, ErrorCode, ErrorMessage, FieldValue, Header, Metadata,
    Packet, PieceKind, PieceLength, Tag, TaskId, TrafficType, annotate,
};

use crate::committed;

const PAGE: &str = "book/src/implementing/exchange.md";
const FILE: &[u8] = b"Vortex moves files in pieces.\n";
const TASK: &str = "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef";

/// Bytes as a dump, 16 a line, with a name and a value beside the first line.
fn dump(offset: usize, bytes: &[u8], name: &str, value: &str) -> String {
    let mut text = String::new();
    for (line, part) in bytes.chunks(16).enumerate() {
        let hex: Vec<String> = part.iter().map(|byte| format!("{byte:02x}")).collect();
        let note = if line == 0 { format!("{name:<17} {value}") } else { String::new() };
        let written = format!("{:>4}  {:<48} {note}", offset + line * 16, hex.join(" "));
        text.push_str(written.trim_end());
        text.push('\n');
    }
    if bytes.is_empty() {
        text.push_str(&format!("{offset:>4}  {:<48} {name:<17} {value}\n", ""));
    }
    text
}

/// A packet and the content bytes after it, as a code block.
fn packet(bytes: &[u8], content: &[u8]) -> String {
    let explained = annotate(bytes);
    assert!(explained.packet.is_ok(), "{:?}", explained.packet);
    assert_eq!(explained.rest(), b"", "every byte of a packet has a name here");
    let mut text = String::from("```text\n");
    for field in &explained.fields {
        let value = match field.value {
            FieldValue::Number(tag) if field.name == "tag" => {
                format!("{tag} = {}", Tag::from(u8::try_from(tag).unwrap()).name())
            }
            FieldValue::Number(number) => number.to_string(),
            FieldValue::Unsigned(number) => number.to_string(),
            FieldValue::Signed(number) => number.to_string(),
            FieldValue::Text("") => String::from("(empty)"),
            FieldValue::Text(value) => value.to_owned(),
            FieldValue::Bytes(_) => panic!("{}: no bytes without a meaning are sent", field.name),
        };
        let place = &bytes[field.offset..field.offset + field.length];
        text.push_str(&dump(field.offset, place, field.name, &value));
    }
    if !content.is_empty() {
        text.push_str("      ---- the packet ends here; what follows is the piece ----\n");
        let value = format!("{:?}", String::from_utf8_lossy(content));
        text.push_str(&dump(0, content, "content", &value));
    }
    text.push_str("```\n\n");
    text
}

#[test]
fn the_page_with_an_exchange_byte_by_byte_is_what_the_codec_says() {
    let task_id = TaskId::from_bytes(TASK.as_bytes().try_into().unwrap()).unwrap();
    let piece_length = PieceLength::try_from(16).unwrap();
    let division = Division::new(FILE.len() as u64, piece_length).unwrap();
    assert_eq!(division.pieces(), 2, "the text speaks of two pieces");

    let request = |id, number| Download { kind: PieceKind::Piece, task_id, number }.encode(id);
    let answer = |id, number| {
        let span = division.piece(number).unwrap();
        let from = usize::try_from(span.offset).unwrap();
        let content = &FILE[from..from + usize::try_from(span.length.get()).unwrap()];
        let digest = Digest::of(Algorithm::Crc32, content).to_text();
        let metadata = Metadata {
            number,
            offset: span.offset,
            length: span.length,
            digest: Bounded::new(digest.as_str()).unwrap(),
            parent_id: Bounded::new("seed-1").unwrap(),
            traffic_type: TrafficType::REMOTE_PEER,
            cost: 3,
            created_at: 1_750_000_000,
        };
        let mut bytes = vec![];
        metadata.encode(id, PieceKind::Piece, &mut bytes);
        (bytes, content)
    };
    let (first, first_content) = answer(0x2a, 0);
    let (second, second_content) = answer(0x2b, 1);
    let mut missing = vec![];
    let message = Bounded::new("no such piece").unwrap();
    ErrorMessage { code: ErrorCode::NotFound, message }.encode(0x2c, &mut missing);
    let close = Header { id: 0x2d, tag: Tag::Close, length: 0 }.encode();
    assert!(Packet::decode_exact(&close).is_ok());

    let total: usize =
        [&first, &second, &missing].iter().map(|packet| packet.len()).sum::<usize>() + FILE.len();
    let page = format!(
        "# An exchange, byte by byte\n\n\
         A file of {length} bytes, fetched by a client that knows nothing but the task id. Its piece length is 16, far smaller than \
         any real one, so that all of it fits on a page. Each line has the offset in the packet, the bytes, and the field. A test of \
         the repository makes this page with the codec; nothing here was typed.\n\n\
         ## Piece 0\n\n\
         The client sends 74 bytes. On QUIC they go out on stream 0, followed by FIN; on TCP nothing follows.\n\n\
         {ask_first}\
         The server answers with a Content packet and, outside of it, the bytes of the piece. Look at `length`: it is the size of the \
         metadata, and `piece_length` is the size of the piece ([VTX-FRM-004](../spec/framing.md#vtx-frm-004)). `metadata_length` is 4 \
         less than `length` ([VTX-CNT-003](../spec/content.md#vtx-cnt-003)).\n\n\
         {give_first}\
         On QUIC the server finishes the stream here. The client computes CRC-32 over the 16 bytes and finds the number in `digest`, so \
         the piece counts.\n\n\
         ## Piece 1\n\n\
         The next request differs in its packet id and in its last byte. On QUIC it has stream 4; on TCP it could have been sent \
         together with the first.\n\n\
         {ask_second}\
         This piece is shorter than the first, so it is the last one: the file has {length} bytes. The client puts it at 1 × 16, by its \
         own arithmetic, and ignores `offset` ([VTX-CNT-009](../spec/content.md#vtx-cnt-009)).\n\n\
         {give_second}\
         ## Piece 2\n\n\
         A client that asks all the same, because it cannot know, is told so.\n\n\
         {ask_missing}\
         {give_missing}\
         An error ends one request. The connection stays ([VTX-ERR-006](../spec/errors.md#vtx-err-006)).\n\n\
         ## The end\n\n\
         The client may say that it is done. It has no need to; a connection can also just end.\n\n\
         {close}\
         All in all, {asked} bytes went to the server and {total} came back, {length} of them the file.\n",
        length = FILE.len(),
        ask_first = packet(&request(0x2a, 0), b""),
        give_first = packet(&first, first_content),
        ask_second = packet(&request(0x2b, 1), b""),
        give_second = packet(&second, second_content),
        ask_missing = packet(&request(0x2c, 2), b""),
        give_missing = packet(&missing, b""),
        close = packet(&close, b""),
        asked = 3 * Download::PACKET_LEN + close.len(),
    );
    committed::check(PAGE, &committed::wrap(&page));
}
