//! A NAT in front of a host: other source ports, or another address, from one packet to the next.

use super::link::Packet;
use super::{HostId, State};
use crate::trace::{Hashed, Protocol};
use smoltcp::wire::{IpAddress, IpProtocol, Ipv4Packet, Ipv6Packet, TcpPacket};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The mappings of one NAT.
#[derive(Debug)]
pub(super) struct Nat {
    /// The address it lends, where it is not the host's own: the n-th of the run.
    lent: Option<u16>,
    next_port: u16,
    out: BTreeMap<(Protocol, SocketAddr), SocketAddr>,
    back: BTreeMap<(Protocol, SocketAddr), SocketAddr>,
}

/// The n-th address that a NAT lends, of the family of `like`: 100.64.x.y or fd64::n.
fn lent(n: u16, like: IpAddr) -> IpAddr {
    let [high, low] = n.to_be_bytes();
    match like {
        IpAddr::V4(_) => Ipv4Addr::new(100, 64, high, low).into(),
        IpAddr::V6(_) => Ipv6Addr::new(0xfd64, 0, 0, 0, 0, 0, 0, n).into(),
    }
}

impl State {
    pub(super) fn rebind(&mut self, host: HostId, new_address: bool) {
        let next = self.lent.len() as u16 / 2 + 1;
        let Some(attached) = self.hosts.get_mut(&host) else { return };
        let old = attached.nat.take();
        let lends = if new_address { Some(next) } else { old.as_ref().and_then(|nat| nat.lent) };
        if new_address {
            for like in [IpAddr::from(Ipv4Addr::UNSPECIFIED), IpAddr::from(Ipv6Addr::UNSPECIFIED)] {
                self.lent.insert(lent(next, like), host);
            }
        }
        let next_port = old.map_or(20_000, |nat| nat.next_port);
        attached.nat = Some(Nat { lent: lends, next_port, out: BTreeMap::new(), back: BTreeMap::new() });
    }

    /// Rewrites the source of what a host behind a NAT sends.
    pub(super) fn leave_through_nat(&mut self, from: HostId, packet: &mut Packet) {
        let Some(nat) = self.hosts.get_mut(&from).and_then(|host| host.nat.as_mut()) else { return };
        let inside = packet.source;
        let key = (packet.protocol, inside);
        let outside = *nat.out.entry(key).or_insert_with(|| {
            nat.next_port += 1;
            let ip = nat.lent.map_or(inside.ip(), |n| lent(n, inside.ip()));
            SocketAddr::new(ip, nat.next_port)
        });
        nat.back.insert((packet.protocol, outside), inside);
        packet.source = outside;
        rewrite(packet);
    }

    /// Rewrites the destination of what comes to a host behind a NAT; false where the NAT knows no such mapping.
    pub(super) fn enter_through_nat(&mut self, to: HostId, packet: &mut Packet) -> bool {
        let Some(nat) = self.hosts.get(&to).and_then(|host| host.nat.as_ref()) else { return true };
        let Some(inside) = nat.back.get(&(packet.protocol, packet.destination)) else { return false };
        packet.destination = *inside;
        rewrite(packet);
        true
    }
}

/// Writes a TCP packet's addresses into its headers, as a NAT does. The checksum is mended only where it was right: a
/// NAT updates it by the difference, so what was corrupted before stays corrupt.
fn rewrite(packet: &mut Packet) {
    if packet.protocol != Protocol::Tcp {
        return;
    }
    let mut bytes = packet.payload.bytes().to_vec();
    if rewrite_headers(&mut bytes, packet.source, packet.destination).is_some() {
        packet.payload = Hashed::new(bytes.into());
    }
}

fn rewrite_headers(bytes: &mut [u8], source: SocketAddr, destination: SocketAddr) -> Option<()> {
    let (from, to): (IpAddress, IpAddress) = (source.ip().into(), destination.ip().into());
    let tcp = match (source.ip(), destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut ip = Ipv4Packet::new_checked(bytes).ok()?;
            if !ip.verify_checksum() || ip.next_header() != IpProtocol::Tcp {
                return None;
            }
            let before: (IpAddress, IpAddress) = (ip.src_addr().into(), ip.dst_addr().into());
            ip.set_src_addr(source);
            ip.set_dst_addr(destination);
            ip.fill_checksum();
            let header = usize::from(ip.header_len());
            (ip.into_inner().get_mut(header..)?, before)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let mut ip = Ipv6Packet::new_checked(bytes).ok()?;
            let before: (IpAddress, IpAddress) = (ip.src_addr().into(), ip.dst_addr().into());
            ip.set_src_addr(source);
            ip.set_dst_addr(destination);
            let header = ip.header_len();
            (ip.into_inner().get_mut(header..)?, before)
        }
        _ => return None,
    };
    let (bytes, before) = tcp;
    let mut tcp = TcpPacket::new_checked(bytes).ok()?;
    if !tcp.verify_checksum(&before.0, &before.1) {
        return None;
    }
    tcp.set_src_port(source.port());
    tcp.set_dst_port(destination.port());
    tcp.fill_checksum(&from, &to);
    Some(())
}
