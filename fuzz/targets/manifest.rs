//! Any bytes as a manifest: what is accepted is written and read again as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vortex_p2p::store::Manifest;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(manifest) = Manifest::parse(bytes) {
        let again = Manifest::parse(manifest.to_json().as_bytes()).expect("what was written is read");
        assert_eq!((again.task(), again.pieces()), (manifest.task(), manifest.pieces()));
    }
});
