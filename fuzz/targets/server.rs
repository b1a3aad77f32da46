//! Any bytes as what a client sends on a connection: the same requests and refusals wherever the bytes are cut.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use vortex_fuzz::split;
use vortex_p2p::session::{Incoming, RequestReader};
use vortex_p2p::wire::extension::{Extension, ExtensionRequest};
use vortex_p2p::wire::{Message, Packet, Tag};

fuzz_target!(|bytes: &[u8]| {
    let all = read(&[Bytes::copy_from_slice(bytes)]);
    assert_eq!(all, read(&split(bytes)));
    for incoming in all {
        match incoming {
            Incoming::Refuse(refusal) => {
                let packet = refusal.encode();
                let decoded = Packet::decode_exact(&packet).expect("a refusal is a packet");
                assert_eq!((decoded.id, decoded.message.tag()), (refusal.id, Tag::Error));
            }
            Incoming::Request { id, download } => {
                let packet = download.encode(id);
                let decoded = Packet::decode_exact(&packet).expect("a request is a packet");
                assert_eq!(decoded, Packet { id, message: Message::Download(download) });
            }
            Incoming::Extension { id, tag, value } => {
                if let Some(extension) = Extension::asked_by(tag)
                    && let Ok(request) = ExtensionRequest::decode(extension, &value)
                {
                    assert_eq!(request.extension(), extension);
                    assert!(!request.encode(id).is_empty());
                }
            }
            Incoming::Close => {}
        }
    }
});

/// Everything up to the first packet after which no other can be found.
fn read(parts: &[Bytes]) -> Vec<Incoming> {
    let mut reader = RequestReader::new();
    let mut seen = Vec::new();
    for part in parts {
        let mut part = part.as_ref();
        while let Some(incoming) = reader.receive(&mut part) {
            let ends = matches!(&incoming, Incoming::Refuse(refusal) if refusal.ends);
            seen.push(incoming);
            if ends {
                return seen;
            }
        }
    }
    seen.extend(reader.finish().map(Incoming::Refuse));
    seen
}
