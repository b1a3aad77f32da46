//! What can be set about QUIC, and why the defaults are what they are.

use super::closing::Closing;
use crate::canary::planted;
use quinn::congestion::{BbrConfig, CubicConfig};
use quinn::{AckFrequencyConfig, MtuDiscoveryConfig, TransportConfig, VarInt};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

/// The largest UDP payload that a peer tries to send, in bytes: 1200, which QUIC needs, to 65,507, which UDP over IPv4 carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct DatagramSize(u16);

impl Default for DatagramSize {
    /// [`ETHERNET`](Self::ETHERNET).
    fn default() -> Self {
        Self::ETHERNET
    }
}

/// A size outside of what a datagram may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a datagram size from 1200 to 65507 bytes, found {0}")]
pub struct DatagramSizeError(pub u16);

impl DatagramSize {
    /// What every QUIC path carries.
    pub const MINIMUM: Self = Self(1200);
    /// What Ethernet carries below IPv6 and an encapsulation.
    pub const ETHERNET: Self = Self(1452);
    /// What jumbo frames of 9000 bytes carry below IPv4.
    pub const JUMBO: Self = Self(8972);
    /// What loopback interfaces carry, below IPv4: as much as there is.
    pub const LOOPBACK: Self = Self(65_507);

    /// A size from 1200 to 65,507 bytes.
    ///
    /// # Errors
    /// [`DatagramSizeError`] for any other.
    pub fn new(bytes: u16) -> Result<Self, DatagramSizeError> {
        match (Self::MINIMUM.0..=Self::LOOPBACK.0).contains(&bytes) {
            true => Ok(Self(bytes)),
            false => Err(DatagramSizeError(bytes)),
        }
    }

    /// The size in bytes.
    pub fn bytes(self) -> u16 {
        self.0
    }

    /// The largest datagram for `to`, where the route there carries packets of `mtu` bytes as far as this host knows, and
    /// where none may be larger than `most`.
    fn on_route(to: SocketAddr, mtu: Option<u32>, most: Self) -> Self {
        /// What Ethernet carries. Whoever has it knows nothing about the path beyond.
        const ETHERNET: u32 = 1500;
        let most = match mtu {
            Some(mtu) if leads_here(mtu) => most,
            Some(mtu) if mtu > ETHERNET => most.min(Self::JUMBO),
            _ => most.min(Self::ETHERNET),
        };
        // The headers of UDP and of IP.
        let headers = 8 + if to.ip().to_canonical().is_ipv4() { 20 } else { 40 };
        let carried = u16::try_from(mtu.unwrap_or(u32::MAX).saturating_sub(headers)).unwrap_or(u16::MAX);
        Self(carried.max(Self::MINIMUM.0)).min(most)
    }

    /// How many datagrams of this size the kernel takes at once: all of a batch together must fit one UDP payload, or the
    /// whole batch is refused, silently, and looks like a black hole.
    pub(super) fn segments(self) -> usize {
        usize::from(Self::LOOPBACK.0 / self.0)
    }
}

/// Whether a route that carries packets of `mtu` bytes leads to this host itself, by the interface that Linux has for it: 65,535
/// bytes for IPv4, and one more for IPv6. Those of tunnels and fabrics have less, and may claim what the path beyond them
/// does not carry.
fn leads_here(mtu: u32) -> bool {
    mtu >= 65_535
}

/// What a server knows of a path before it has sent anything: how path MTU discovery is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PathMtu {
    /// The ceiling.
    pub(super) largest: DatagramSize,
    within_host: bool,
}

impl PathMtu {
    /// Of the path to `to`: the ceiling is `set`, or else what the route carries, where that is `mtu` as far as this host knows,
    /// and no more than `most`.
    pub(super) fn new(
        set: Option<DatagramSize>,
        to: SocketAddr,
        mtu: Option<u32>,
        most: DatagramSize,
    ) -> Self {
        let largest = set.unwrap_or_else(|| DatagramSize::on_route(to, mtu, most));
        Self { largest, within_host: mtu.is_some_and(leads_here) }
    }

    /// Whether the ceiling is tried once, in place of a search below it.
    fn is_tried_once(self) -> bool {
        self.within_host || self.largest > DatagramSize::JUMBO
    }
}

impl From<DatagramSize> for PathMtu {
    /// Of a path of which nothing is known but the ceiling.
    fn from(largest: DatagramSize) -> Self {
        Self { largest, within_host: false }
    }
}

/// How fast to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Congestion {
    /// RFC 9438.
    #[default]
    Cubic,
    /// Version 1, experimental in quinn. It draws randomness that cannot be seeded: a simulation that uses it
    /// does not repeat.
    Bbr,
}

/// The settings of a QUIC endpoint and its connections.
#[derive(Debug, Clone)]
pub struct QuicSettings {
    /// Silence after which a connection is over; the smaller one of both peers' counts.
    ///
    /// 30 s (VTX-QUC-007). Rounded down to milliseconds, at most 49 days.
    pub idle_timeout: Duration,
    /// How often a client sends something on a connection that is silent otherwise. Servers send nothing.
    ///
    /// 3 s (VTX-QUC-008): ten chances to be heard before the idle timeout, and the shortest time after which common
    /// middleboxes forget a UDP flow is ten times as long.
    pub keep_alive: Duration,
    /// Bytes that a peer may send on one stream beyond what was read.
    ///
    /// 16 MiB (VTX-QUC-009), a bandwidth-delay product of 1 Gb/s over 130 ms. It is memory that a peer can fill.
    pub stream_window: u32,
    /// Bytes that a peer may send on all streams of a connection beyond what was read.
    ///
    /// 16 MiB (VTX-QUC-009), the same as for one stream: what bounds the memory of a connection is this one.
    pub connection_window: u32,
    /// Bytes that a connection sends at most beyond what is acknowledged; it keeps them in memory until they are.
    ///
    /// 16 MiB: what the peer's window lets in. How many they are follows the path, down to
    /// [`least_send_window`](Self::least_send_window).
    pub send_window: u32,
    /// Bytes that a connection may send in any case beyond what is acknowledged; never more than
    /// [`send_window`](Self::send_window).
    ///
    /// 2 MiB: what the processor's cache and the socket's buffer of a receiver next door hold, and 160 Mb/s over 100 ms.
    pub least_send_window: u32,
    /// Bidirectional streams that a server grants at a time. A client grants none, and nobody unidirectional ones.
    ///
    /// 100 (VTX-QUC-020).
    pub streams: u32,
    /// How fast to send.
    ///
    /// Cubic, because it is the one of the two that is standard, and that a simulation can repeat.
    pub congestion: Congestion,
    /// The ceiling of path MTU discovery at a server, which finds what the path carries below it. Clients, whose requests are
    /// short, send 1200 bytes at most. Larger ones are accepted in any case.
    ///
    /// None: what the route to the client carries ([`Network::route_mtu`](crate::transport::Network::route_mtu)), up to 8972
    /// bytes; 1452 where that is not known or 1500, which is as much as the Internet carries. Data centres with jumbo frames
    /// gain a multiple from more. Everywhere else, trying for more would only fill the first windows. Within a host it is up
    /// to 65,507 bytes, on connections that begin while the server has fewer than 64: each keeps a buffer of the size.
    pub largest_datagram: Option<DatagramSize>,
    /// The round trip that is assumed until one has been measured.
    ///
    /// 100 ms, where RFC 9002 recommends 333: with that, a lost first packet is sent again after 1 s and then after 3 s,
    /// while the connect deadline is 2 s. With 100 ms it is sent after 0.3 s and 0.9 s. Where the path is longer, the cost
    /// is a spurious retransmission.
    pub initial_rtt: Duration,
    /// Sends and accepts requests before the handshake is complete, when a session is resumed.
    ///
    /// On: such requests only read (VTX-QUC-036 to 045). Never on where clients have to show who they are.
    pub early_data: bool,
    /// Connection attempts that may wait for a server's decision; those above are refused.
    ///
    /// 1024 (and 64 KiB of early packets for each, far above the 16 early requests of a client; 16 MiB for all).
    pub max_incoming: usize,
    /// Has every connection noted.
    ///
    /// Off. Without it, nothing is formatted or written for a packet.
    #[cfg(feature = "qlog")]
    pub qlog: Option<super::Qlog>,
}

impl Default for QuicSettings {
    fn default() -> Self {
        const WINDOW: u32 = 16 << 20;
        Self {
            //= VTX-QUC-007
            idle_timeout: Duration::from_secs(30),
            //= VTX-QUC-008
            keep_alive: Duration::from_secs(3),
            //= VTX-QUC-009
            stream_window: WINDOW,
            connection_window: WINDOW,
            send_window: WINDOW,
            least_send_window: 2 << 20,
            //= VTX-QUC-020
            streams: 100,
            congestion: Congestion::Cubic,
            largest_datagram: None,
            initial_rtt: Duration::from_millis(100),
            //= VTX-QUC-036
            early_data: true,
            max_incoming: 1024,
            #[cfg(feature = "qlog")]
            qlog: None,
        }
    }
}

impl QuicSettings {
    /// Early packets that are kept for one connection attempt and for all of them, in bytes.
    pub(super) const INCOMING_BUFFER: (u64, u64) = (64 << 10, 16 << 20);

    /// How many connections of a server have datagrams beyond 8972 bytes at a time, on the routes that carry them.
    ///
    /// A connection keeps a buffer of the largest datagram that it has sent, if only to find out what the path carries, and up
    /// to seven of that size while it sends much. A thousand of them that are idle are to have 64 KiB each at most, and have
    /// 47 KiB without it.
    pub(super) const LARGEST_DATAGRAMS: usize = 64;

    /// quinn's settings for a connection that a client opens.
    pub(super) fn client_transport(&self, closing: &Closing) -> TransportConfig {
        let mut transport = self.transport(None, closing);
        // Requests are short. A client that searched for what the path carries would fill its first window with it, have the
        // server read all that padding, and keep a buffer of the size.
        transport.mtu_discovery_config(None);
        transport.keep_alive_interval((!planted("keep-alive-off")).then_some(self.keep_alive));
        transport
    }

    /// quinn's settings for a connection that a server accepts, over a path of which this is known.
    pub(super) fn server_transport(&self, path: PathMtu, closing: &Closing) -> TransportConfig {
        let mut discovery = MtuDiscoveryConfig::default();
        discovery.upper_bound(path.largest.bytes());
        // As RFC 9002 (section 7.2) has it, two where they are large. With less, the one that tries fills the window, and the
        // first answer waits until it is acknowledged.
        let window = path.is_tried_once().then(|| (2 * u64::from(path.largest.bytes())).max(14_720));
        let mut transport = self.transport(window, closing);
        if path.is_tried_once() {
            // The largest is what the path carries or, where something stands in between after all, the common size is. A
            // search would have more tries, and a receiver reads every byte of them as a frame of its own.
            let common = path.largest.min(DatagramSize::ETHERNET).bytes();
            discovery.minimum_change((path.largest.bytes() - common).max(20));
            transport.initial_mtu(common);
        }
        if path.largest > DatagramSize::JUMBO {
            // So few of them are a window that the peer has to acknowledge each at once, or it ends with one that is waited for.
            let mut acknowledgements = AckFrequencyConfig::default();
            acknowledgements.ack_eliciting_threshold(VarInt::from_u32(0));
            transport.ack_frequency_config(Some(acknowledgements));
        }
        transport.mtu_discovery_config(Some(discovery));
        transport.max_concurrent_bidi_streams(VarInt::from_u32(self.streams));
        transport
    }

    /// The least and the most that a connection sends beyond what is acknowledged, in bytes.
    pub(super) fn send_windows(&self) -> RangeInclusive<u64> {
        let most = u64::from(self.send_window);
        most.min(self.least_send_window.into())..=most
    }

    /// What both sides have in common: no streams are granted. A first window in bytes, where it is not quinn's.
    fn transport(&self, window: Option<u64>, closing: &Closing) -> TransportConfig {
        let idle = u32::try_from(self.idle_timeout.as_millis()).unwrap_or(u32::MAX);
        let (mut cubic, mut bbr) = (CubicConfig::default(), BbrConfig::default());
        if let Some(window) = window {
            cubic.initial_window(window);
            bbr.initial_window(window);
        }
        let mut transport = TransportConfig::default();
        transport
            .max_idle_timeout((!planted("idle-timeout-off")).then_some(VarInt::from_u32(idle).into()))
            .stream_receive_window(VarInt::from_u32(self.stream_window))
            .receive_window(VarInt::from_u32(self.connection_window))
            .send_window(*self.send_windows().start())
            //= VTX-QUC-019
            .max_concurrent_bidi_streams(VarInt::from_u32(0))
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .initial_rtt(self.initial_rtt)
            .ack_frequency_config(Some(AckFrequencyConfig::default()))
            // Vortex has no use for datagrams, so none are accepted.
            .datagram_receive_buffer_size(None);
        transport.congestion_controller_factory(closing.controllers(match self.congestion {
            Congestion::Cubic => Arc::new(cubic),
            Congestion::Bbr => Arc::new(bbr),
        }));
        transport
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// quinn shows its settings in no other way.
    fn shows(transport: &TransportConfig, expected: &[&str]) {
        let shown = format!("{transport:?}");
        for field in expected {
            assert!(shown.contains(field), "expected {field} in {shown}");
        }
    }

    #[test]
    fn defaults_are_those_of_the_specification() {
        //= VTX-QUC-007 test
        //= VTX-QUC-008 test
        //= VTX-QUC-009 test
        let common =
            ["max_idle_timeout: Some(30000)", "stream_receive_window: 16777216", " receive_window: 16777216"];
        let settings = QuicSettings::default();
        shows(&settings.client_transport(&Closing::default()), &common);
        shows(&settings.client_transport(&Closing::default()), &["keep_alive_interval: Some(3s)"]);
        shows(&settings.server_transport(DatagramSize::ETHERNET.into(), &Closing::default()), &common);
        shows(
            &settings.server_transport(DatagramSize::ETHERNET.into(), &Closing::default()),
            &["keep_alive_interval: None"],
        );
    }

    #[test]
    fn a_connection_begins_with_the_least_send_window_and_never_has_more_than_the_most() {
        let settings = QuicSettings::default();
        shows(
            &settings.server_transport(DatagramSize::ETHERNET.into(), &Closing::default()),
            &["send_window: 2097152"],
        );
        assert_eq!(settings.send_windows(), 2 << 20..=16 << 20);
        let small = QuicSettings { send_window: 1 << 20, ..settings };
        shows(
            &small.server_transport(DatagramSize::ETHERNET.into(), &Closing::default()),
            &["send_window: 1048576"],
        );
        assert_eq!(small.send_windows(), 1 << 20..=1 << 20);
    }

    #[test]
    fn an_idle_timeout_beyond_all_measure_is_the_longest_there_is() {
        let settings = QuicSettings { idle_timeout: Duration::MAX, ..QuicSettings::default() };
        shows(&settings.client_transport(&Closing::default()), &["max_idle_timeout: Some(4294967295)"]);
    }

    #[test]
    fn datagrams_have_a_least_and_a_largest_size() {
        assert_eq!(DatagramSize::new(1199), Err(DatagramSizeError(1199)));
        assert_eq!(DatagramSize::new(1200), Ok(DatagramSize::MINIMUM));
        assert_eq!(DatagramSize::new(8972), Ok(DatagramSize::JUMBO));
        assert_eq!(DatagramSize::new(65_507), Ok(DatagramSize::LOOPBACK));
        assert_eq!(DatagramSize::new(65_508), Err(DatagramSizeError(65_508)));
    }

    #[test]
    fn a_route_says_how_large_datagrams_may_be() {
        let v4 = "192.0.2.1:4006".parse().unwrap();
        let v6 = "[2001:db8::1]:4006".parse().unwrap();
        let mapped = "[::ffff:192.0.2.1]:4006".parse().unwrap();
        for (to, mtu, bytes) in [
            (v4, None, 1452),
            (v4, Some(1500), 1452),
            (v6, Some(1500), 1452),
            (v4, Some(1420), 1392),
            (v6, Some(1420), 1372),
            (v6, Some(1280), 1232),
            (v4, Some(576), 1200),
            (v4, Some(0), 1200),
            (v4, Some(9000), 8972),
            (mapped, Some(9000), 8972),
            (v6, Some(9000), 8952),
            (v4, Some(65_520), 8972),
            (v4, Some(65_535), 65_507),
            (v6, Some(65_536), 65_488),
            (v6, Some(u32::MAX), 65_507),
        ] {
            let largest = |most| DatagramSize::on_route(to, mtu, most).bytes();
            assert_eq!(largest(DatagramSize::LOOPBACK), bytes, "{to} by {mtu:?}");
            assert_eq!(largest(DatagramSize::JUMBO), bytes.min(8972), "{to} by {mtu:?}");
        }
    }

    /// quinn's search, as it goes where the path carries `carries` bytes: what is found, and how often something was tried.
    fn search(transport: &TransportConfig, carries: u16) -> (u16, usize) {
        let shown = format!("{transport:?}");
        let field = |name: &str| -> i32 {
            let (_, value) = shown.split_once(&format!("{name}: ")).unwrap();
            value.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
        };
        let (mut lower, change) = (field("initial_mtu"), field("minimum_change"));
        let mut upper = field("upper_bound").max(lower);
        let (mut last, mut tries) = (lower, 0);
        loop {
            let next = i32::midpoint(lower, upper);
            last = match (next - last).abs() < change {
                false => next,
                true if upper - last >= change => upper,
                true => return (u16::try_from(lower).unwrap(), tries),
            };
            tries += 1;
            match last <= carries.into() {
                true => lower = last,
                false => upper = last - 1,
            }
        }
    }

    #[test]
    fn within_a_host_every_size_is_found_at_once_and_elsewhere_by_a_search() {
        let to: SocketAddr = "127.0.0.1:4006".parse().unwrap();
        let settings = QuicSettings::default();
        let path = |set, mtu| {
            let path = PathMtu::new(set, to, Some(mtu), DatagramSize::LOOPBACK);
            settings.server_transport(path, &Closing::default())
        };
        for bytes in 1200..=65_507 {
            let set = Some(DatagramSize::new(bytes).unwrap());
            let (found, tries) = search(&path(set, 65_536), u16::MAX);
            assert!(
                (bytes.saturating_sub(19)..=bytes).contains(&found) && tries <= 1,
                "{bytes}: {found}, {tries}"
            );
            // What was taken for a path is another one: the common size is left.
            assert_eq!(search(&path(set, 65_536), 1452).0, found.min(1452), "{bytes}");
        }
        for mtu in 1228..=9000 {
            let largest = path(None, mtu);
            let ceiling = DatagramSize::on_route(to, Some(mtu), DatagramSize::LOOPBACK).bytes();
            for carries in [ceiling, 1452, 1392] {
                let (found, _) = search(&largest, carries);
                let most = carries.min(ceiling);
                assert!(
                    (most.saturating_sub(40).max(1200)..=most).contains(&found),
                    "{mtu}, {carries}: {found}"
                );
            }
        }
    }

    #[test]
    fn a_batch_of_any_size_fits_one_payload() {
        for bytes in 1200..=65_507 {
            let size = DatagramSize::new(bytes).unwrap();
            assert!(size.segments() * usize::from(bytes) <= 65_507);
            assert!((size.segments() + 1) * usize::from(bytes) > 65_507);
        }
    }
}
