//! Any bytes as a capture: its frames, its segments and its streams, with no more bytes handed on than there are.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::convert::Infallible;
use vortex_p2p::pcap::{Capture, Event, FlowId, Flows, segment};

fuzz_target!(|bytes: &[u8]| {
    let Ok(mut capture) = Capture::open(bytes) else { return };
    let mut flows = Flows::default();
    let mut handed_on = 0;
    let mut sink = |_: FlowId, event: Event<'_>| {
        if let Event::Data(data) = event {
            handed_on += data.len();
        }
        Ok::<(), Infallible>(())
    };
    while let Ok(Some(frame)) = capture.next_frame() {
        if let Some(segment) = segment(frame) {
            let Ok(()) = flows.push(&segment, &mut sink);
        }
    }
    let Ok(()) = flows.finish(&mut sink);
    assert!(handed_on <= bytes.len());
});
