//! The TCP segment in a frame.

use super::Frame;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A TCP segment, as far as it was captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Who sent it.
    pub source: SocketAddr,
    /// To whom.
    pub destination: SocketAddr,
    /// Sequence number of the first byte of the payload, or of the SYN.
    pub sequence: u32,
    /// The begin of a connection.
    pub syn: bool,
    /// The end of the direction, after the payload.
    pub fin: bool,
    /// The connection was reset.
    pub rst: bool,
    /// The bytes.
    pub payload: &'a [u8],
    /// Bytes of the payload that were sent and not captured.
    pub missing: usize,
}

/// The TCP segment in a frame over IPv4 or IPv6; `None` where there is none, or only a fragment of one.
#[must_use]
pub fn segment<'a>(frame: Frame<'a>) -> Option<Segment<'a>> {
    ip(match frame.link {
        // BSD loopback: a protocol family of four bytes.
        0 | 108 => frame.bytes.get(4..)?,
        // Ethernet.
        1 => ethernet(frame.bytes)?,
        // Raw IP.
        12 | 14 | 101 | 228 | 229 => frame.bytes,
        // Linux, cooked, of both versions.
        113 => frame.bytes.get(16..)?,
        276 => frame.bytes.get(20..)?,
        _ => return None,
    })
}

fn ethernet(bytes: &[u8]) -> Option<&[u8]> {
    let mut rest = bytes.get(12..)?;
    // The type, behind up to two VLAN tags.
    for _ in 0..3 {
        let (kind, after) = rest.split_first_chunk()?;
        match u16::from_be_bytes(*kind) {
            0x8100 | 0x88A8 => rest = after.get(2..)?,
            0x0800 | 0x86DD => return Some(after),
            _ => return None,
        }
    }
    None
}

fn ip(bytes: &[u8]) -> Option<Segment<'_>> {
    match bytes.first()? >> 4 {
        4 => ipv4(bytes),
        6 => ipv6(bytes),
        _ => None,
    }
}

fn ipv4(bytes: &[u8]) -> Option<Segment<'_>> {
    let header: &[u8; 20] = bytes.first_chunk()?;
    let [first, _, l0, l1, _, _, f0, f1, _, protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3] = *header;
    let header_length = usize::from(first & 0x0F) * 4;
    // A later fragment, or one that others follow.
    if protocol != 6 || u16::from_be_bytes([f0, f1]) & 0x3FFF != 0 || header_length < 20 {
        return None;
    }
    let total = usize::from(u16::from_be_bytes([l0, l1]));
    let payload = bytes.get(header_length..)?;
    // 0 where the network card cuts what the kernel hands it whole.
    let length = if total == 0 { payload.len() } else { total.checked_sub(header_length)? };
    let (source, destination) = (Ipv4Addr::new(s0, s1, s2, s3), Ipv4Addr::new(d0, d1, d2, d3));
    tcp(source.into(), destination.into(), payload, length)
}

fn ipv6(bytes: &[u8]) -> Option<Segment<'_>> {
    let (header, mut rest) = bytes.split_first_chunk::<40>()?;
    let [_, _, _, _, l0, l1, mut next, _, addresses @ ..] = *header;
    let (source, destination) = addresses.split_first_chunk::<16>()?;
    let destination: &[u8; 16] = destination.first_chunk()?;
    let total = usize::from(u16::from_be_bytes([l0, l1]));
    let mut length = if total == 0 { rest.len() } else { total };
    // Hop-by-hop options, routing, destination options: in front of the segment, and rarely there.
    for _ in 0..8 {
        if !matches!(next, 0 | 43 | 60) {
            break;
        }
        let extension = 8 + 8 * usize::from(*rest.get(1)?);
        next = *rest.first()?;
        rest = rest.get(extension..)?;
        length = length.checked_sub(extension)?;
    }
    if next != 6 {
        return None;
    }
    tcp(Ipv6Addr::from(*source).into(), Ipv6Addr::from(*destination).into(), rest, length)
}

/// `length` bytes were sent, `bytes` of them captured, or more where the frame is padded.
fn tcp(source: IpAddr, destination: IpAddr, bytes: &[u8], length: usize) -> Option<Segment<'_>> {
    let bytes = bytes.get(..length.min(bytes.len()))?;
    let header: &[u8; 20] = bytes.first_chunk()?;
    let [p0, p1, q0, q1, n0, n1, n2, n3, _, _, _, _, data, flags, ..] = *header;
    let header_length = usize::from(data >> 4) * 4;
    if header_length < 20 {
        return None;
    }
    let payload = bytes.get(header_length..)?;
    Some(Segment {
        source: SocketAddr::new(source, u16::from_be_bytes([p0, p1])),
        destination: SocketAddr::new(destination, u16::from_be_bytes([q0, q1])),
        sequence: u32::from_be_bytes([n0, n1, n2, n3]),
        syn: flags & 0x02 != 0,
        fin: flags & 0x01 != 0,
        rst: flags & 0x04 != 0,
        payload,
        missing: length.checked_sub(header_length)?.checked_sub(payload.len())?,
    })
}
