//! What happened on the wire: every packet, in order, folded into a digest.
//!
//! Two runs of one seed are the same when their digests are; where they are not, the recorded events show the first
//! packet that differs.

use crate::rng::nanos;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use twox_hash::{XxHash3_64, XxHash3_128};

/// What a packet belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// A UDP datagram; its payload is what the socket was given.
    Udp,
    /// A TCP segment; its payload is the IP packet.
    Tcp,
}

/// What became of a packet at one point of its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// A host sent it.
    Sent,
    /// It was read by the host it was meant for.
    Delivered,
    /// The link lost it.
    Lost,
    /// The queue before the bottleneck was full, or its manager dropped it.
    QueueDropped,
    /// It is larger than what the path lets through, and nobody says so.
    TooLarge,
    /// The link is cut.
    Cut,
    /// The link holds it back.
    Held,
    /// Its bytes were changed under way; the event carries the new ones.
    Corrupted,
    /// A second copy was made.
    Duplicated,
    /// It was marked "congestion experienced".
    Marked,
    /// Nobody has the address: the host is down, nothing is bound, or a NAT forgot the mapping.
    Unreachable,
    /// The reader was too slow and its receive buffer full.
    BufferFull,
}

impl Fate {
    /// What is told of a packet that had it.
    pub fn words(self) -> &'static str {
        match self {
            Fate::Sent => "sent",
            Fate::Delivered => "delivered",
            Fate::Lost => "lost",
            Fate::QueueDropped => "dropped by the queue",
            Fate::TooLarge => "too large for the path",
            Fate::Cut => "cut off",
            Fate::Held => "held back",
            Fate::Corrupted => "changed on the way",
            Fate::Duplicated => "arrives twice",
            Fate::Marked => "marked: congestion experienced",
            Fate::Unreachable => "nobody has the address",
            Fate::BufferFull => "receive buffer full",
        }
    }

    fn sign(self) -> &'static str {
        match self {
            Fate::Sent => "->",
            Fate::Delivered => "<-",
            Fate::Lost => "lost",
            Fate::QueueDropped => "queue",
            Fate::TooLarge => "mtu",
            Fate::Cut => "cut",
            Fate::Held => "held",
            Fate::Corrupted => "flip",
            Fate::Duplicated => "dup",
            Fate::Marked => "ce",
            Fate::Unreachable => "gone",
            Fate::BufferFull => "full",
        }
    }
}

/// One packet at one point of its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Virtual nanoseconds since the start of the run.
    pub at: u64,
    /// What became of it.
    pub fate: Fate,
    /// UDP or TCP.
    pub protocol: Protocol,
    /// Where it came from, as seen at this point.
    pub source: SocketAddr,
    /// Where it goes, as seen at this point.
    pub destination: SocketAddr,
    /// Bytes of payload.
    pub length: u32,
    /// XXH3 of the payload.
    pub hash: u64,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Event { at, fate, protocol, source, destination, length, hash } = self;
        let (seconds, rest) = (at / 1_000_000_000, at % 1_000_000_000);
        let protocol = match protocol {
            Protocol::Udp => "udp",
            Protocol::Tcp => "tcp",
        };
        let sign = fate.sign();
        write!(f, "{seconds:4}.{rest:09} {protocol} {sign:<5} {source} > {destination} {length} {hash:016x}")
    }
}

/// How much of a run is kept beside its digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Keep {
    /// Only the digest.
    #[default]
    Digest,
    /// Every event.
    Events,
    /// Every event, and the bytes of every packet sent.
    Payloads,
}

/// The packets of one run.
pub struct Trace {
    keep: Keep,
    digest: XxHash3_128,
    count: u64,
    events: Vec<Event>,
    payloads: Vec<Sent>,
}

/// A packet that a host sent.
#[derive(Debug, Clone)]
pub struct Sent {
    /// When and where to.
    pub event: Event,
    /// What became of it at once: nothing where it is on its way, unchanged.
    pub fates: Vec<Fate>,
    /// Its bytes.
    pub bytes: Bytes,
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trace").field("count", &self.count).finish_non_exhaustive()
    }
}

impl Trace {
    /// An empty trace that keeps what `keep` says.
    pub fn new(keep: Keep) -> Self {
        Trace { keep, digest: XxHash3_128::new(), count: 0, events: Vec::new(), payloads: Vec::new() }
    }

    /// Adds one event; `payload` is what its hash is of.
    pub fn add(
        &mut self,
        at: Duration,
        fate: Fate,
        protocol: Protocol,
        source: SocketAddr,
        destination: SocketAddr,
        payload: &Hashed,
    ) {
        let length = u32::try_from(payload.bytes.len()).unwrap_or(u32::MAX);
        let event = Event { at: nanos(at), fate, protocol, source, destination, length, hash: payload.hash };
        self.digest.write(&encode(&event));
        self.count += 1;
        if self.keep >= Keep::Events {
            self.events.push(event);
        }
        // What left a host is what a capture on its interface would show.
        if self.keep >= Keep::Payloads {
            match fate {
                Fate::Sent => {
                    self.payloads.push(Sent { event, fates: Vec::new(), bytes: payload.bytes.clone() });
                }
                Fate::Delivered | Fate::BufferFull => {}
                // A network decides over a packet when it is sent.
                fate => {
                    if let Some(sent) = self.payloads.last_mut().filter(|sent| sent.event.at == event.at) {
                        sent.fates.push(fate);
                    }
                }
            }
        }
    }

    /// The digest over every event so far.
    pub fn digest(&self) -> Digest {
        Digest(self.digest.finish_128())
    }

    /// How many events there were.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The events, where they were kept.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// The packets sent, with their bytes, where they were kept.
    pub fn payloads(&self) -> &[Sent] {
        &self.payloads
    }
}

/// The bytes of a packet and their hash, computed once.
#[derive(Debug, Clone)]
pub struct Hashed {
    bytes: Bytes,
    hash: u64,
}

impl Hashed {
    /// Hashes `bytes`.
    pub fn new(bytes: Bytes) -> Self {
        let hash = XxHash3_64::oneshot(&bytes);
        Hashed { bytes, hash }
    }

    /// The bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

/// The digest of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub u128);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        u128::from_str_radix(&text, 16).map(Digest).map_err(serde::de::Error::custom)
    }
}

/// The first place at which two traces differ: its index, and what each has there (nothing where one is shorter).
pub fn first_difference<'a>(
    left: &'a [Event],
    right: &'a [Event],
) -> Option<(usize, Option<&'a Event>, Option<&'a Event>)> {
    (0..left.len().max(right.len()))
        .map(|index| (index, left.get(index), right.get(index)))
        .find(|(_, left, right)| left != right)
}

/// An event as fixed bytes, the digest's input. The order of fields is part of what a digest means.
fn encode(event: &Event) -> [u8; 64] {
    let mut out = [0; 64];
    let mut put = {
        let mut rest = out.as_mut_slice();
        move |bytes: &[u8]| {
            if let Some((head, tail)) = std::mem::take(&mut rest).split_at_mut_checked(bytes.len()) {
                head.copy_from_slice(bytes);
                rest = tail;
            }
        }
    };
    put(&event.at.to_le_bytes());
    put(&[event.fate as u8, event.protocol as u8]);
    for address in [event.source, event.destination] {
        match address.ip() {
            IpAddr::V4(ip) => put(&ip.to_ipv6_mapped().octets()),
            IpAddr::V6(ip) => put(&ip.octets()),
        }
        put(&address.port().to_le_bytes());
    }
    put(&event.length.to_le_bytes());
    put(&event.hash.to_le_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(at: u64, hash: u64) -> Event {
        let (source, destination) = ("10.0.0.1:1".parse().unwrap(), "[fd00::2]:2".parse().unwrap());
        Event { at, fate: Fate::Sent, protocol: Protocol::Udp, source, destination, length: 3, hash }
    }

    #[test]
    fn every_field_reaches_the_digest() {
        let base = event(5, 6);
        let changed = [
            event(6, 6),
            event(5, 7),
            Event { fate: Fate::Lost, ..base },
            Event { protocol: Protocol::Tcp, ..base },
            Event { source: "10.0.0.2:1".parse().unwrap(), ..base },
            Event { source: "10.0.0.1:2".parse().unwrap(), ..base },
            Event { destination: "[fd00::3]:2".parse().unwrap(), ..base },
            Event { destination: "[fd00::2]:3".parse().unwrap(), ..base },
            Event { length: 4, ..base },
        ];
        for other in changed {
            assert_ne!(encode(&base), encode(&other), "{other}");
        }
    }

    #[test]
    fn the_first_difference_is_found() {
        let left = [event(1, 1), event(2, 2)];
        assert_eq!(first_difference(&left, &left), None);
        assert_eq!(first_difference(&left, &left[..1]), Some((1, Some(&left[1]), None)));
        let right = [event(1, 1), event(2, 3)];
        assert_eq!(first_difference(&left, &right), Some((1, Some(&left[1]), Some(&right[1]))));
    }
}
