//! Everything an endpoint draws comes from the runtime: equal seeds send equal bytes.

use super::world::{PEER, Recorder, Recording, World};
use std::sync::Arc;
use vortex_p2p::transport::quic::{QuicClient, QuicEndpoint, QuicSettings};
use vortex_p2p::transport::tls::{Admission, ClientTls, Crypto, Identity, ServerIdentity, ServerTls, Trust};

async fn client(seed: u64) -> Vec<u8> {
    let world = World::new(seed);
    let network = Arc::new(Recording::default());
    let any = "0.0.0.0:0".parse().unwrap();
    let endpoint =
        QuicEndpoint::bind(world.clone(), network.clone(), any, QuicSettings::default(), None).await.unwrap();
    let tls = ClientTls::new(&Crypto::new(world.clone()), &Trust::Insecure, None).unwrap();
    let client = QuicClient::new(world, &QuicSettings::default(), Arc::new(tls));
    let _dialing = endpoint.dial(&client, PEER.parse().unwrap()).unwrap();
    network.0.sent().await
}

async fn server(seed: u64) -> (QuicEndpoint, Arc<Recorder>) {
    let world = World::new(seed);
    let network = Arc::new(Recording::default());
    let crypto = Crypto::new(world.clone());
    let identity = ServerIdentity::new(Identity::self_signed(&crypto).unwrap());
    let tls = ServerTls::new(&crypto, &identity, &Admission::Anyone).unwrap();
    let any = "0.0.0.0:0".parse().unwrap();
    let endpoint =
        QuicEndpoint::bind(world, network.clone(), any, QuicSettings::default(), Some(&tls)).await.unwrap();
    (endpoint, network.0.clone())
}

/// Version, length and bytes of the destination's id, length and bytes of the source's id.
fn ids(initial: &[u8]) -> &[u8] {
    assert_eq!(initial[1..6], [0, 0, 0, 1, 20], "version 1, and an id of 20 bytes");
    assert_eq!(initial[26], 8, "an id of 8 bytes");
    &initial[1..35]
}

#[tokio::test]
async fn a_client_draws_its_ids_from_the_runtime() {
    let (one, same, other) = (client(1).await, client(1).await, client(2).await);
    // The rest holds an ephemeral key, which the provider draws: a simulation brings its own.
    assert_eq!(ids(&one), ids(&same));
    assert_ne!(ids(&one)[5..25], ids(&other)[5..25]);
    assert_ne!(ids(&one)[26..], ids(&other)[26..]);
}

#[tokio::test]
async fn a_server_draws_its_reset_key_from_the_runtime() {
    let reset = async |seed| {
        let (_endpoint, socket) = server(seed).await;
        // A packet of a connection that nobody knows.
        socket.arrive([&[0x40][..], &[7; 99]].concat());
        socket.sent().await
    };
    let (one, same, other) = (reset(1).await, reset(1).await, reset(2).await);
    assert_eq!(one, same);
    let token = |packet: &[u8]| packet[packet.len() - 16..].to_vec();
    assert_ne!(token(&one), token(&other));
}

#[tokio::test]
async fn a_server_draws_its_retry_tokens_from_the_runtime() {
    let initial = client(1).await;
    let retry = async |seed| {
        let (endpoint, socket) = server(seed).await;
        socket.arrive(initial.clone());
        endpoint.accept().await.unwrap().retry().unwrap();
        socket.sent().await
    };
    let (one, same, other) = (retry(1).await, retry(1).await, retry(2).await);
    assert_eq!(one, same);
    assert_ne!(one, other);
}

#[test]
fn an_identity_is_drawn_from_the_runtime() {
    let fingerprint = |seed| Identity::self_signed(&Crypto::new(World::new(seed))).unwrap().fingerprint();
    assert_eq!(fingerprint(1), fingerprint(1));
    assert_ne!(fingerprint(1), fingerprint(2));
}
