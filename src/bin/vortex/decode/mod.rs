//! `vortex decode`: explains packets.

mod hex;
mod report;
mod stream;

use crate::cli::Output;
use crate::exit::{Exit, Failure};
use clap::Args;
use hex::HexPacket;
use report::Printer;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read};
use stream::{Explainer, Item};
use vortex_p2p::pcap::{self, Capture, Event, FlowId, Flows};

/// Explain packets field by field
///
/// With --json, each packet is one object: ok, tag, name, id, length, fields, and hex, which is the packet encoded
/// again; or ok false, error and message, where error is the name of a decode error of the specification, or not-hex
/// for input that is no hexadecimal, or gap for bytes that a capture lacks. What follows a Content packet in a file is its content: it is summed up in the
/// packet's content, and checked against the digest.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Hexadecimal of one packet, `-` for such a packet on each line of stdin, or a file that holds the bytes of a
    /// connection (a name that is hexadecimal itself needs `./`)
    #[arg(value_name = "HEX|-|FILE", default_value = "-")]
    input: OsString,
}

pub(crate) fn run(arguments: &Arguments, output: &Output) -> Result<Exit, Failure> {
    let mut printer = Printer::new(io::stdout().lock(), output.json);
    match arguments.input.to_str() {
        Some("-") => lines(&mut BufReader::new(io::stdin().lock()), &mut printer),
        Some(text) if is_hex(text) => {
            let mut packet = HexPacket::default();
            packet.push(text.as_bytes());
            printer.line(&packet)?;
            printer.finish()
        }
        _ => file(arguments, &mut printer),
    }
}

fn is_hex(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte.is_ascii_whitespace())
}

/// One packet a line. Lines that are malformed are part of the answer, not a failure.
fn lines(input: &mut BufReader<impl Read>, printer: &mut Printer<impl io::Write>) -> Result<Exit, Failure> {
    let mut packet = HexPacket::default();
    let mut begun = false;
    loop {
        let bytes = input.fill_buf().map_err(unreadable)?;
        if bytes.is_empty() {
            break;
        }
        let (line, taken) = match bytes.iter().position(|byte| *byte == b'\n') {
            Some(end) => (bytes.get(..end), end + 1),
            None => (None, bytes.len()),
        };
        packet.push(line.unwrap_or(bytes));
        begun = line.is_none();
        if line.is_some() {
            printer.line(&std::mem::take(&mut packet))?;
        }
        input.consume(taken);
        if input.buffer().is_empty() {
            // Whoever types or asks line by line waits for the answer.
            printer.flush()?;
        }
    }
    if begun {
        printer.line(&packet)?;
    }
    printer.finish()?;
    Ok(Exit::Done)
}

/// A capture, or the bytes of one direction of a connection.
fn file(arguments: &Arguments, printer: &mut Printer<impl io::Write>) -> Result<Exit, Failure> {
    let path = &arguments.input;
    let file = File::open(path).map_err(|error| {
        let exit = if error.kind() == io::ErrorKind::NotFound { Exit::NotFound } else { Exit::Disk };
        Failure::new(exit, format!("could not open {}: {error}", path.display()))
            .hint("expected hexadecimal, `-`, or the name of a file")
    })?;
    let mut input = BufReader::with_capacity(64 << 10, file);
    if input.fill_buf().map_err(unreadable)?.first_chunk().is_some_and(|first| pcap::is_capture(*first)) {
        return capture(input, printer);
    }
    let mut explainer = Explainer::default();
    loop {
        let bytes = input.fill_buf().map_err(unreadable)?;
        let taken = bytes.len();
        if taken == 0 {
            break;
        }
        explainer.push(bytes, &mut |item| printer.item(None, item))?;
        input.consume(taken);
    }
    explainer.finish(&mut |item| printer.item(None, item))?;
    printer.finish()
}

/// The TCP streams of a capture, each packet where its last byte was captured.
fn capture(input: impl Read, printer: &mut Printer<impl io::Write>) -> Result<Exit, Failure> {
    let mut capture = Capture::open(input).map_err(unreadable)?;
    let mut flows = Flows::default();
    let mut explainers: BTreeMap<FlowId, Explainer> = BTreeMap::new();
    let mut sink = |id: FlowId, event: Event<'_>| -> Result<(), Failure> {
        let flow = format!("{} > {}", id.source, id.destination);
        let mut show = |item: Item<'_>| printer.item(Some(&flow), item);
        match event {
            Event::Data(bytes) => explainers.entry(id).or_default().push(bytes, &mut show),
            Event::End => explainers.remove(&id).unwrap_or_default().finish(&mut show),
            Event::Gap => {
                explainers.remove(&id).unwrap_or_default().finish(&mut show)?;
                printer.gap(&flow)
            }
        }
    };
    let mut segments = 0u64;
    let end = loop {
        let frame = match capture.next_frame() {
            Ok(Some(frame)) => frame,
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        };
        if let Some(segment) = pcap::segment(frame) {
            segments += 1;
            flows.push(&segment, &mut sink)?;
        }
    };
    flows.finish(&mut sink)?;
    let exit = printer.finish()?;
    end.map_err(unreadable)?;
    if segments == 0 {
        return Err(Failure::new(Exit::NotFound, "no TCP segment in the capture")
            .hint("QUIC is encrypted: export the decrypted streams, or use the dissector with the key log"));
    }
    Ok(exit)
}

fn unreadable(error: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Disk, format!("could not read the input: {error}"))
}
