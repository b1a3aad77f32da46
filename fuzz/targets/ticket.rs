//! Any text as a ticket: what is accepted is printed and read again as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vortex_p2p::ticket::Ticket;

fuzz_target!(|text: &str| {
    if let Ok(ticket) = text.parse::<Ticket>() {
        assert_eq!(ticket.to_string().parse(), Ok(ticket));
    }
});
