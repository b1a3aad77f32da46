//! Whom to ask, and over which protocol.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// How a peer is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// Vortex over QUIC: `quic://`.
    Quic,
    /// Vortex over TCP: `tcp://`, with TLS where identity is demanded.
    Tcp,
    /// `dfdaemon.v2` over gRPC: `grpc://`.
    Grpc,
    /// Whichever of the others works best with the peer.
    Auto,
}

impl Protocol {
    /// Every protocol that goes over the wire.
    pub const ALL: [Self; 3] = [Self::Quic, Self::Tcp, Self::Grpc];

    /// Its name, which is its scheme: `quic`, `tcp`, `grpc`, `auto`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Tcp => "tcp",
            Self::Grpc => "grpc",
            Self::Auto => "auto",
        }
    }

    /// The port that Dragonfly's peers serve it on unless they are told otherwise.
    #[must_use]
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Quic | Self::Auto => 4006,
            Self::Tcp => 4005,
            Self::Grpc => 4000,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Text that names no peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// There is no `://`.
    #[error("expected quic://HOST:PORT, tcp://HOST:PORT or grpc://HOST:PORT, found `{0}`")]
    NoScheme(String),
    /// Another protocol.
    #[error("unknown protocol `{0}`: expected quic, tcp or grpc")]
    UnknownScheme(String),
    /// The host is missing.
    #[error("expected a host after ://, such as quic://192.0.2.1:4006")]
    NoHost,
    /// An IPv6 address without brackets, or brackets around something else.
    #[error("expected an IPv6 address in brackets, such as quic://[2001:db8::1]:4006, found `{0}`")]
    Brackets(String),
    /// A port that is no number from 1 to 65535.
    #[error("expected a port from 1 to 65535, found `{0}`")]
    Port(String),
    /// Something follows the port.
    #[error("expected nothing after the port, found `{0}`")]
    Trailing(String),
    /// A name where an address is needed.
    #[error("expected an IP address, found the name `{0}`, which has to be resolved first")]
    Name(String),
}

/// A peer as a person writes it, `quic://HOST:PORT`: the host may be a name that is still to be resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerName<'a> {
    /// How it is spoken to.
    pub protocol: Protocol,
    /// Its name or address, without brackets.
    pub host: &'a str,
    /// Its port; the default one of the protocol where none was written.
    pub port: u16,
}

impl<'a> PeerName<'a> {
    /// Reads `SCHEME://HOST[:PORT]`, with an IPv6 address in brackets. A single `/` may follow.
    ///
    /// # Errors
    /// [`PeerError`], which says what was expected.
    pub fn parse(text: &'a str) -> Result<Self, PeerError> {
        let (scheme, rest) = text.split_once("://").ok_or_else(|| PeerError::NoScheme(text.to_owned()))?;
        let protocol = Protocol::ALL
            .into_iter()
            .find(|protocol| scheme.eq_ignore_ascii_case(protocol.name()))
            .ok_or_else(|| PeerError::UnknownScheme(scheme.to_owned()))?;
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if let Some(at) = authority.find(['/', '?', '#']) {
            return Err(PeerError::Trailing(authority.get(at..).unwrap_or_default().to_owned()));
        }
        let brackets = || PeerError::Brackets(authority.to_owned());
        let (host, port) = if let Some(inner) = authority.strip_prefix('[') {
            let (host, port) = inner.split_once(']').ok_or_else(brackets)?;
            if host.parse::<std::net::Ipv6Addr>().is_err() {
                return Err(brackets());
            }
            match port.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if port.is_empty() => (host, None),
                None => return Err(brackets()),
            }
        } else {
            match authority.split_once(':') {
                Some((_, port)) if port.contains(':') => return Err(brackets()),
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            }
        };
        if host.is_empty() {
            return Err(PeerError::NoHost);
        }
        let port = match port {
            None => protocol.default_port(),
            Some(text) => text
                .parse()
                .ok()
                .filter(|port| *port != 0 && text.bytes().all(|byte| byte.is_ascii_digit()))
                .ok_or_else(|| PeerError::Port(text.to_owned()))?,
        };
        Ok(Self { protocol, host, port })
    }
}

/// A peer that can be asked: `quic://192.0.2.1:4006`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Peer {
    /// How it is spoken to.
    pub protocol: Protocol,
    /// Where it is.
    pub address: SocketAddr,
}

impl Peer {
    /// The peer at `address`, spoken to over `protocol`.
    #[must_use]
    pub const fn new(protocol: Protocol, address: SocketAddr) -> Self {
        Self { protocol, address }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.protocol, self.address)
    }
}

impl FromStr for Peer {
    type Err = PeerError;

    /// As [`PeerName::parse`], with an IP address for a host: nothing is resolved here.
    fn from_str(text: &str) -> Result<Self, PeerError> {
        let PeerName { protocol, host, port } = PeerName::parse(text)?;
        let ip: IpAddr = host.parse().map_err(|_| PeerError::Name(host.to_owned()))?;
        Ok(Self { protocol, address: SocketAddr::new(ip, port) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_peer_reads_what_it_writes(
            protocol in prop::sample::select(Protocol::ALL.to_vec()),
            ip in any::<IpAddr>(),
            port in 1u16..,
        ) {
            let peer = Peer::new(protocol, SocketAddr::new(ip, port));
            prop_assert_eq!(peer.to_string().parse(), Ok(peer));
        }

        #[test]
        fn any_text_is_a_peer_or_an_error(text in ".{0,60}") {
            if let Ok(peer) = text.parse::<Peer>() {
                prop_assert_eq!(peer.to_string().parse(), Ok(peer));
            }
        }
    }

    #[test]
    fn names_and_default_ports() {
        let parse = |text| PeerName::parse(text).map(|name| (name.protocol, name.host, name.port));
        assert_eq!(parse("quic://seed.example"), Ok((Protocol::Quic, "seed.example", 4006)));
        assert_eq!(parse("TCP://[::1]/"), Ok((Protocol::Tcp, "::1", 4005)));
        assert_eq!(parse("grpc://192.0.2.1:1"), Ok((Protocol::Grpc, "192.0.2.1", 1)));
    }

    #[test]
    fn errors_say_what_was_expected() {
        let error = |text: &str| text.parse::<Peer>().unwrap_err();
        assert_eq!(error("192.0.2.1:4006"), PeerError::NoScheme("192.0.2.1:4006".into()));
        assert_eq!(error("http://192.0.2.1"), PeerError::UnknownScheme("http".into()));
        assert_eq!(error("quic://"), PeerError::NoHost);
        assert_eq!(error("quic://:4006"), PeerError::NoHost);
        assert_eq!(error("quic://::1:4006"), PeerError::Brackets("::1:4006".into()));
        assert_eq!(error("quic://[192.0.2.1]:4006"), PeerError::Brackets("[192.0.2.1]:4006".into()));
        assert_eq!(error("quic://192.0.2.1:0"), PeerError::Port("0".into()));
        assert_eq!(error("quic://192.0.2.1:+80"), PeerError::Port("+80".into()));
        assert_eq!(error("quic://192.0.2.1:4006/x"), PeerError::Trailing("/x".into()));
        assert_eq!(error("quic://seed:4006"), PeerError::Name("seed".into()));
    }
}
