//! What a peer's handshake says that QUIC keeps to itself: transport parameters, the name, application protocols.

use bytes::Buf;
use quinn::crypto::{
    ClientConfig, ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey, ServerConfig, Session,
    UnsupportedVersion,
};
use quinn::{ConnectError, ConnectionId, Side};
use quinn_proto::TransportError;
use quinn_proto::transport_parameters::TransportParameters;
use std::any::Any;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Transport parameters by id, as RFC 9000 numbers them; those that have their default value are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Parameters(BTreeMap<u64, Vec<u8>>);

impl Parameters {
    pub(super) const MAX_IDLE_TIMEOUT: u64 = 0x01;
    pub(super) const INITIAL_MAX_DATA: u64 = 0x04;
    pub(super) const INITIAL_MAX_STREAM_DATA_BIDI_LOCAL: u64 = 0x05;
    pub(super) const INITIAL_MAX_STREAM_DATA_BIDI_REMOTE: u64 = 0x06;
    pub(super) const INITIAL_MAX_STREAMS_BIDI: u64 = 0x08;
    pub(super) const INITIAL_MAX_STREAMS_UNI: u64 = 0x09;
    pub(super) const DISABLE_ACTIVE_MIGRATION: u64 = 0x0c;

    fn read(mut bytes: &[u8]) -> Self {
        let mut parameters = BTreeMap::new();
        while let (Some(id), Some(length)) = (varint(&mut bytes), varint(&mut bytes)) {
            let parts = usize::try_from(length).ok().and_then(|length| bytes.split_at_checked(length));
            let Some((value, rest)) = parts else { break };
            parameters.insert(id, value.to_vec());
            bytes = rest;
        }
        Self(parameters)
    }

    pub(super) fn has(&self, id: u64) -> bool {
        self.0.contains_key(&id)
    }

    /// The number that a parameter has; 0 where it was not sent, as is the default of all those named here.
    pub(super) fn number(&self, id: u64) -> u64 {
        self.0.get(&id).and_then(|value| varint(&mut value.as_slice())).unwrap_or_default()
    }
}

/// An integer of variable length (RFC 9000, section 16).
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let first = *bytes.first()?;
    let length = 1usize << (first >> 6);
    if bytes.len() < length {
        return None;
    }
    let value = bytes.get_uint(length);
    // The two highest bits of the first byte say how long the integer is.
    Some(value & (u64::MAX >> (66 - 8 * length)))
}

/// Where what was observed is kept.
pub(super) type Seen = Arc<Mutex<Option<Parameters>>>;

pub(super) fn parameters(seen: &Seen) -> Option<Parameters> {
    seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// A client's TLS that keeps the parameters of its server.
pub(super) struct ObservingClient<C> {
    pub(super) inner: Arc<C>,
    pub(super) seen: Seen,
}

impl<C: ClientConfig + 'static> ClientConfig for ObservingClient<C> {
    fn start_session(
        self: Arc<Self>,
        version: u32,
        server_name: &str,
        params: &TransportParameters,
    ) -> Result<Box<dyn Session>, ConnectError> {
        let inner = self.inner.clone().start_session(version, server_name, params)?;
        Ok(Box::new(Observed { inner, seen: self.seen.clone() }))
    }
}

/// A server's TLS; a connection's `handshake_data` is a [`Hello`].
pub(super) struct ObservingServer<C>(pub(super) Arc<C>);

impl<C: ServerConfig + 'static> ServerConfig for ObservingServer<C> {
    fn initial_keys(&self, version: u32, dst_cid: &ConnectionId) -> Result<Keys, UnsupportedVersion> {
        self.0.initial_keys(version, dst_cid)
    }
    fn retry_tag(&self, version: u32, orig_dst_cid: &ConnectionId, packet: &[u8]) -> [u8; 16] {
        self.0.retry_tag(version, orig_dst_cid, packet)
    }
    fn start_session(self: Arc<Self>, version: u32, params: &TransportParameters) -> Box<dyn Session> {
        let inner = self.0.clone().start_session(version, params);
        Box::new(Observed { inner, seen: Seen::default() })
    }
}

/// What a client said in its handshake.
#[derive(Debug, Clone, Default)]
pub(super) struct Hello {
    pub(super) server_name: Option<String>,
    pub(super) parameters: Parameters,
}

struct Observed {
    inner: Box<dyn Session>,
    seen: Seen,
}

impl Session for Observed {
    fn initial_keys(&self, dst_cid: &ConnectionId, side: Side) -> Keys {
        self.inner.initial_keys(dst_cid, side)
    }
    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        let data = self.inner.handshake_data()?;
        let data = data.downcast::<quinn::crypto::rustls::HandshakeData>().ok()?;
        let parameters = parameters(&self.seen).unwrap_or_default();
        Some(Box::new(Hello { server_name: data.server_name, parameters }))
    }
    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        self.inner.peer_identity()
    }
    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        self.inner.early_crypto()
    }
    fn early_data_accepted(&self) -> Option<bool> {
        self.inner.early_data_accepted()
    }
    fn is_handshaking(&self) -> bool {
        self.inner.is_handshaking()
    }
    fn read_handshake(&mut self, buf: &[u8]) -> Result<bool, TransportError> {
        self.inner.read_handshake(buf)
    }
    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        let sent = self.inner.transport_parameters()?;
        if let Some(sent) = &sent {
            let mut bytes = Vec::new();
            sent.write(&mut bytes);
            *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(Parameters::read(&bytes));
        }
        Ok(sent)
    }
    fn write_handshake(&mut self, buf: &mut Vec<u8>) -> Option<Keys> {
        self.inner.write_handshake(buf)
    }
    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        self.inner.next_1rtt_keys()
    }
    fn is_valid_retry(&self, orig_dst_cid: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        self.inner.is_valid_retry(orig_dst_cid, header, payload)
    }
    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        self.inner.export_keying_material(output, label, context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_as_rfc_9000_writes_them() {
        // The examples of RFC 9000, appendix A.1, as values of three parameters, and one without a value.
        let bytes =
            b"\x01\x08\xc2\x19\x7c\x5e\xff\x14\xe8\x8c\x04\x04\x9d\x7f\x3e\x7d\x09\x02\x7b\xbd\x0c\x00";
        let parameters = Parameters::read(bytes);
        assert_eq!(parameters.number(Parameters::MAX_IDLE_TIMEOUT), 151_288_809_941_952_652);
        assert_eq!(parameters.number(Parameters::INITIAL_MAX_DATA), 494_878_333);
        assert_eq!(parameters.number(Parameters::INITIAL_MAX_STREAMS_UNI), 15_293);
        assert!(parameters.has(Parameters::DISABLE_ACTIVE_MIGRATION));
        assert_eq!(parameters.number(Parameters::INITIAL_MAX_STREAMS_BIDI), 0);
    }
}
