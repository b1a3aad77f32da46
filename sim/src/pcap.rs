//! A run's packets as a capture file that tshark and Wireshark open, with the keys of its connections in it.

use crate::host::EPOCH;
use crate::rng::nanos;
use crate::trace::{Event, Fate, Protocol, Sent};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{IpAddress, IpProtocol, IpRepr, Ipv4Packet, UdpPacket, UdpRepr};
use std::io::{self, Write};

/// Packets start with the IP header.
const LINKTYPE_RAW: u32 = 101;

/// Writes `packets` in the pcapng format, as sent; what became of a packet stands in its comment. `keys` are TLS secrets
/// in the format of `SSLKEYLOGFILE`: whoever opens the file sees what QUIC protects.
///
/// # Errors
/// Those of `out`.
pub fn write(packets: &[Sent], keys: &str, out: &mut impl Write) -> io::Result<()> {
    // Section header: byte order, version 1.0, length not known.
    block(out, 0x0a0d_0d0a, &words(&[0x1a2b_3c4d, 1, u32::MAX, u32::MAX]))?;
    // Interface: its link type, no limit on lengths, time in units of 10^-9 s.
    block(out, 1, &[words(&[LINKTYPE_RAW, 0]), option(9, &[9])].concat())?;
    // Secrets of TLS, before the packets that need them.
    block(out, 10, &[words(&[0x544c_534b, keys.len() as u32]), padded(keys.as_bytes())].concat())?;
    for Sent { event, fates, bytes } in packets {
        let packet = match event.protocol {
            Protocol::Tcp => bytes.to_vec(),
            Protocol::Udp => udp(event, bytes),
        };
        let (at, length) = (nanos(EPOCH) + event.at, packet.len() as u32);
        let mut body = words(&[0, (at >> 32) as u32, at as u32, length, length]);
        body.extend(padded(&packet));
        if !fates.is_empty() {
            let comment: Vec<&str> = fates.iter().copied().map(Fate::words).collect();
            body.extend(option(1, comment.join(", ").as_bytes()));
        }
        block(out, 6, &body)?;
    }
    Ok(())
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn padded(bytes: &[u8]) -> Vec<u8> {
    let mut padded = bytes.to_vec();
    padded.resize(bytes.len().next_multiple_of(4), 0);
    padded
}

/// One option, and the end of options.
fn option(code: u16, value: &[u8]) -> Vec<u8> {
    [words(&[u32::from(code) | (value.len() as u32) << 16]), padded(value), words(&[0])].concat()
}

fn block(out: &mut impl Write, kind: u32, body: &[u8]) -> io::Result<()> {
    let length = words(&[body.len() as u32 + 12]);
    out.write_all(&[&words(&[kind]), &length, body, &length].concat())
}

/// The IP packet around a datagram.
fn udp(event: &Event, payload: &[u8]) -> Vec<u8> {
    let (from, to): (IpAddress, IpAddress) = (event.source.ip().into(), event.destination.ip().into());
    let header = UdpRepr { src_port: event.source.port(), dst_port: event.destination.port() };
    let datagram = header.header_len() + payload.len();
    let ip = IpRepr::new(from, to, IpProtocol::Udp, datagram, 64);
    let mut packet = vec![0; ip.header_len() + datagram];
    let checksums = ChecksumCapabilities::default();
    ip.emit(packet.as_mut_slice(), &checksums);
    if let Some(rest) = packet.get_mut(ip.header_len()..) {
        let mut udp = UdpPacket::new_unchecked(rest);
        header.emit(&mut udp, &from, &to, payload.len(), |place| place.copy_from_slice(payload), &checksums);
    }
    if let Ok(mut ip) = Ipv4Packet::new_checked(packet.as_mut_slice()) {
        ip.fill_checksum();
    }
    packet
}
