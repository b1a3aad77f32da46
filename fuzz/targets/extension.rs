//! Any bytes as the answer to a request of an extension, and as its value: what decodes is encoded to the same, and a range
//! is never longer than what was asked for.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use vortex_fuzz::Draw;
use vortex_p2p::session::{ExtensionReply, longest_reply, read_reply};
use vortex_p2p::wire::extension::{
    Availability, Capabilities, Description, Extension, ExtensionRequest, Hold,
};
use vortex_p2p::wire::{Download, PieceKind, TaskId};

fuzz_target!(|bytes: &[u8]| {
    let mut draw = Draw::of(bytes);
    let (kind, task_id) = (PieceKind::Piece, TaskId::from_sha256([7; 32]));
    // Of an answer, the tag says what was asked.
    let asked = bytes.get(1).map_or(0, |tag| tag.wrapping_sub(1));
    let request = match Extension::ALL.into_iter().find(|extension| extension.request_tag() == asked) {
        Some(Extension::Range) => {
            let piece = Download { kind, task_id, number: draw.below(4) as u32 };
            ExtensionRequest::Range { piece, start: draw.below(8) as u32, length: draw.below(64) as u32 }
        }
        Some(Extension::Description) => ExtensionRequest::Description { kind, task_id },
        Some(Extension::Availability) => {
            let hold = (draw.below(2) == 1).then(|| Hold { known: draw.below(64) as u32, wait: 1_000 });
            ExtensionRequest::Availability { kind, task_id, first: draw.below(64) as u32, hold }
        }
        Some(Extension::Capabilities) | None => ExtensionRequest::Capabilities,
    };
    if let Ok(Some(reply)) = read_reply(&request, &Bytes::copy_from_slice(bytes)) {
        assert!(bytes.len() <= longest_reply(&request), "no more has to be read than was");
        if let (ExtensionReply::Range(_, content), ExtensionRequest::Range { length, .. }) =
            (&reply, &request)
        {
            assert!(content.len() <= *length as usize);
        }
    }

    for extension in Extension::ALL {
        if let Ok(request) = ExtensionRequest::decode(extension, bytes) {
            assert_eq!(ExtensionRequest::decode(extension, value(&request.encode(0))), Ok(request));
        }
    }
    if let Ok(known) = Capabilities::decode(bytes) {
        assert_eq!(Capabilities::decode(value(&known.encode(0))), Ok(known));
    }
    if let Ok(description) = Description::decode(bytes) {
        assert_eq!(Description::decode(value(&description.encode(0))), Ok(description));
    }
    if let Ok(held) = Availability::decode(bytes) {
        assert_eq!(Availability::decode(value(&held.encode(0))), Ok(held));
    }
});

/// The packet without its header.
fn value(packet: &[u8]) -> &[u8] {
    &packet[6..]
}
