//! Which cipher protects a connection. Neither quinn nor a protected stream tells, so the two ends of rustls shake hands
//! here, without a transport.

use super::pki::{crypto, runtime, server};
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::cipher_suite::{
    TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
};
use rustls::quic::{self, Version};
use rustls::{CipherSuite, ClientConnection, ServerConnection, SupportedCipherSuite};
use std::sync::Arc;
use vortex_p2p::transport::tls::{Admission, ClientTls, Crypto, Identity, ServerTls, Trust};

/// A client that offers `suites`, in this order.
fn offering(suites: &[SupportedCipherSuite]) -> ClientTls {
    let ring = rustls::crypto::ring::default_provider();
    let provider = CryptoProvider { cipher_suites: suites.to_vec(), ..ring };
    let crypto = Crypto::with_provider(runtime(), Arc::new(provider));
    ClientTls::new(&crypto, &Trust::Insecure, None).unwrap()
}

/// The suite of a handshake over TCP, and over QUIC.
fn agreed(client: &ClientTls, server: &ServerTls) -> [CipherSuite; 2] {
    let config = || Arc::new(client.for_peer("192.0.2.1:4006".parse().unwrap()));
    let name = || client.name().clone();

    let mut here = ClientConnection::new(config(), name()).unwrap();
    let mut there = ServerConnection::new(server.config().clone()).unwrap();
    let mut wire = Vec::new();
    while here.is_handshaking() || there.is_handshaking() {
        here.write_tls(&mut wire).unwrap();
        there.read_tls(&mut wire.as_slice()).unwrap();
        there.process_new_packets().unwrap();
        wire.clear();
        there.write_tls(&mut wire).unwrap();
        here.read_tls(&mut wire.as_slice()).unwrap();
        here.process_new_packets().unwrap();
        wire.clear();
    }
    assert_eq!(here.negotiated_cipher_suite(), there.negotiated_cipher_suite());
    let over_tcp = here.negotiated_cipher_suite();

    let mut here = quic::ClientConnection::new(config(), Version::V1, name(), Vec::new()).unwrap();
    let mut there = quic::ServerConnection::new(server.config().clone(), Version::V1, Vec::new()).unwrap();
    while here.is_handshaking() || there.is_handshaking() {
        // No more at a time than up to the next change of keys, as packets would carry it.
        drop(here.write_hs(&mut wire));
        there.read_hs(&wire).unwrap();
        wire.clear();
        drop(there.write_hs(&mut wire));
        here.read_hs(&wire).unwrap();
        wire.clear();
    }
    [over_tcp, here.negotiated_cipher_suite()].map(|suite| suite.unwrap().suite())
}

#[test]
fn peers_protect_with_aes_128() {
    let server = server(Identity::self_signed(&crypto()).unwrap(), &Admission::Anyone);
    let client = ClientTls::new(&crypto(), &Trust::Insecure, None).unwrap();
    assert_eq!(agreed(&client, &server), [CipherSuite::TLS13_AES_128_GCM_SHA256; 2]);
}

#[test]
fn clients_with_other_ciphers_are_served_with_what_they_prefer() {
    let server = server(Identity::self_signed(&crypto()).unwrap(), &Admission::Anyone);
    let (aes_128, aes_256, chacha20) =
        (TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256);
    for offered in [
        &[aes_256][..],
        &[chacha20],
        // Without instructions for AES.
        &[chacha20, aes_128, aes_256],
        // Whoever wants the longer key gets it; so do deployed peers, which have rustls' own order.
        &[aes_256, aes_128, chacha20],
    ] {
        assert_eq!(agreed(&offering(offered), &server), [offered[0].suite(); 2]);
    }
}
