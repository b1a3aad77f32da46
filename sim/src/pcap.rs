//! A run's packets as a capture file that tshark and Wireshark open.

use crate::host::EPOCH;
use crate::rng::nanos;
use crate::trace::{Event, Protocol};
use bytes::Bytes;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{IpAddress, IpProtocol, IpRepr, Ipv4Packet, UdpPacket, UdpRepr};
use std::io::{self, Write};

/// Packets start with the IP header.
const LINKTYPE_RAW: u32 = 101;

/// Writes `packets` in the pcap format with nanoseconds.
///
/// # Errors
/// Those of `out`.
pub fn write(packets: &[(Event, Bytes)], out: &mut impl Write) -> io::Result<()> {
    let words = [0xa1b2_3c4d, 0x0004_0002, 0, 0, 0x0004_0000, LINKTYPE_RAW];
    for word in words {
        out.write_all(&u32::to_le_bytes(word))?;
    }
    for (event, payload) in packets {
        let packet = match event.protocol {
            Protocol::Tcp => payload.to_vec(),
            Protocol::Udp => udp(event, payload),
        };
        let at = nanos(EPOCH) + event.at;
        let (seconds, rest) = ((at / 1_000_000_000) as u32, (at % 1_000_000_000) as u32);
        let length = packet.len() as u32;
        for word in [seconds, rest, length, length] {
            out.write_all(&word.to_le_bytes())?;
        }
        out.write_all(&packet)?;
    }
    Ok(())
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
