//! QUIC endpoints on the kernel's sockets.

use super::at_once;
use super::pki::{ANSWER, REQUEST, crypto, runtime, server};
use crate::firewall::Firewalled;
use quinn::{Connection, ConnectionError, PathStats};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use vortex_p2p::transport::TokioNetwork;
use vortex_p2p::transport::quic::{
    AppCode, DatagramSize, DialError, QuicClient, QuicEndpoint, QuicSettings, close,
};
use vortex_p2p::transport::tls::{Admission, By, ClientTls, Identity, Reason, Refusal, ServerTls, Trust};

pub(super) async fn endpoint(server: Option<&ServerTls>) -> (QuicEndpoint, SocketAddr) {
    bind(QuicSettings::default(), server).await
}

pub(super) async fn bind(settings: QuicSettings, server: Option<&ServerTls>) -> (QuicEndpoint, SocketAddr) {
    let network = Arc::new(TokioNetwork::default());
    let any = "127.0.0.1:0".parse().unwrap();
    let endpoint = QuicEndpoint::bind(runtime(), network, any, settings, server).await.unwrap();
    let address = endpoint.local_addr().unwrap();
    (endpoint, address)
}

pub(super) fn client(trust: &Trust) -> QuicClient {
    let tls = Arc::new(ClientTls::new(&crypto(), trust, None).unwrap());
    QuicClient::new(runtime(), &QuicSettings::default(), tls)
}

pub(super) fn self_signed() -> ServerTls {
    server(Identity::self_signed(&crypto()).unwrap(), &Admission::Anyone)
}

/// Sends the request on a new stream and reads the answer.
pub(super) async fn ask(connection: &Connection) -> Option<Vec<u8>> {
    let (mut send, mut receive) = connection.open_bi().await.ok()?;
    send.write_all(REQUEST).await.ok()?;
    send.finish().ok()?;
    receive.read_to_end(1 << 10).await.ok()
}

/// Answers the requests of one connection until it ends; how it ended.
pub(super) async fn answer(incoming: quinn::Incoming) -> ConnectionError {
    let connection = match incoming.await {
        Ok(connection) => connection,
        Err(error) => return error,
    };
    loop {
        let (mut send, mut receive) = match connection.accept_bi().await {
            Ok(streams) => streams,
            Err(error) => return error,
        };
        if receive.read_to_end(1 << 10).await.is_ok_and(|request| request == REQUEST) {
            send.write_all(ANSWER).await.unwrap();
            send.finish().unwrap();
        }
    }
}

/// One request and its answer; what the client and the server are told.
pub(super) async fn exchange(
    client: &ClientTls,
    server: &ServerTls,
) -> (Result<(), Refusal>, Result<(), Refusal>) {
    let client = QuicClient::new(runtime(), &QuicSettings::default(), Arc::new(client.clone()));
    exchange_at(&endpoint(Some(server)).await.0, &client).await
}

/// As [`exchange`], with a given server and client.
pub(super) async fn exchange_at(
    serving: &QuicEndpoint,
    client: &QuicClient,
) -> (Result<(), Refusal>, Result<(), Refusal>) {
    let address = serving.local_addr().unwrap();
    let (dialing, _) = endpoint(None).await;
    let asking = async {
        let connection = match dialing.dial(client, address).unwrap().established().await {
            Ok(connection) => connection,
            Err(DialError::Refused(refusal)) => return Err(refusal),
            Err(error) => panic!("no refusal: {error:?}"),
        };
        match ask(&connection).await {
            Some(bytes) => {
                assert_eq!(bytes, ANSWER);
                close(&connection, AppCode::NoError, b"");
                Ok(())
            }
            None => Err(told(&connection.closed().await)),
        }
    };
    let answering = async { answer(serving.accept().await.unwrap()).await };
    let (asked, answered) = tokio::join!(asking, answering);
    let answered = match answered {
        ConnectionError::ApplicationClosed(close) => {
            assert_eq!(AppCode::of(close.error_code), Some(AppCode::NoError));
            Ok(())
        }
        error => Err(told(&error)),
    };
    (asked, answered)
}

fn told(error: &ConnectionError) -> Refusal {
    Refusal::from_quic(error).unwrap_or_else(|| panic!("no refusal: {error:?}"))
}

/// A client of quinn alone, which does what no client of ours does.
async fn foreign(
    tls: rustls::ClientConfig,
    to: SocketAddr,
    name: &str,
) -> Result<Connection, ConnectionError> {
    let tls = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    endpoint.connect_with(quinn::ClientConfig::new(Arc::new(tls)), to, name).unwrap().await
}

#[tokio::test]
async fn application_protocols_are_refused() {
    //= VTX-QUC-003 test
    let (serving, address) = endpoint(Some(&self_signed())).await;
    let ours = ClientTls::new(&crypto(), &Trust::Insecure, None).unwrap().for_peer(address);
    //= VTX-QUC-002 test
    assert!(ours.alpn_protocols.is_empty());
    let mut tls = ours;
    tls.alpn_protocols = vec![b"vortex".to_vec()];
    let (dialed, answered) =
        tokio::join!(foreign(tls, address, "d7y"), async { answer(serving.accept().await.unwrap()).await });
    let dialed = dialed.unwrap_err();
    let ConnectionError::ConnectionClosed(close) = &dialed else { panic!("{dialed:?}") };
    assert_eq!(u64::from(close.error_code), 0x0178);
    assert_eq!((told(&dialed).by, told(&dialed).reason), (By::Peer, Reason::ApplicationProtocol));
    assert_eq!((told(&answered).by, told(&answered).reason), (By::This, Reason::ApplicationProtocol));
}

#[tokio::test]
async fn a_server_answers_to_any_name_and_to_none() {
    //= VTX-QUC-005 test
    let (serving, address) = endpoint(Some(&self_signed())).await;
    for (name, sent) in [("d7y", true), ("other.example", true), ("d7y", false)] {
        let mut tls = ClientTls::new(&crypto(), &Trust::Insecure, None).unwrap().for_peer(address);
        tls.enable_sni = sent;
        let (dialed, seen) = tokio::join!(foreign(tls, address, name), async {
            let connection = serving.accept().await.unwrap().await.unwrap();
            let data = connection.handshake_data().unwrap();
            let data = data.downcast::<quinn::crypto::rustls::HandshakeData>().unwrap();
            (connection, data.server_name)
        });
        dialed.unwrap();
        assert_eq!(seen.1.as_deref(), sent.then_some(name));
    }
}

#[tokio::test]
async fn a_client_calls_servers_by_their_default_name() {
    //= VTX-QUC-004 test
    let (serving, address) = endpoint(Some(&self_signed())).await;
    let (dialing, _) = endpoint(None).await;
    let insecure = client(&Trust::Insecure);
    let (_client, name) = tokio::join!(dialing.dial(&insecure, address).unwrap().established(), async {
        let connection = serving.accept().await.unwrap().await.unwrap();
        let data = connection.handshake_data().unwrap();
        data.downcast::<quinn::crypto::rustls::HandshakeData>().unwrap().server_name
    });
    assert_eq!(name.as_deref(), Some("d7y"));
}

#[tokio::test]
async fn nobody_grants_streams_that_nobody_should_open() {
    //= VTX-QUC-019 test
    //= VTX-QUC-020 test
    let (serving, address) = endpoint(Some(&self_signed())).await;
    let (dialing, _) = endpoint(None).await;
    let insecure = client(&Trust::Insecure);
    let (client, server) = tokio::join!(dialing.dial(&insecure, address).unwrap().established(), async {
        serving.accept().await.unwrap().await.unwrap()
    });
    let client = client.unwrap();
    let mut streams = Vec::new();
    for _ in 0..QuicSettings::default().streams {
        streams.push(at_once(pin!(client.open_bi())).expect("a stream that is granted").unwrap());
    }
    assert!(at_once(pin!(client.open_bi())).is_none(), "the stream after the last that is granted");
    assert!(at_once(pin!(client.open_uni())).is_none());
    assert!(at_once(pin!(server.open_bi())).is_none());
    assert!(at_once(pin!(server.open_uni())).is_none());
}

#[tokio::test]
async fn answers_go_on_when_the_client_moves() {
    //= VTX-QUC-010 test
    //= VTX-QUC-011 test
    let (serving, address) = endpoint(Some(&self_signed())).await;
    let (dialing, _) = endpoint(None).await;
    let insecure = client(&Trust::Insecure);
    let serve = async { answer(serving.accept().await.unwrap()).await };
    let test = async {
        let connection = dialing.dial(&insecure, address).unwrap().established().await.unwrap();
        assert_eq!(ask(&connection).await.unwrap(), ANSWER);
        let before = dialing.local_addr().unwrap();
        dialing.rebind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        assert_ne!(dialing.local_addr().unwrap(), before);
        assert_eq!(ask(&connection).await.unwrap(), ANSWER);
    };
    tokio::select! {
        () = test => {}
        error = serve => panic!("{error:?}"),
    }
}

#[tokio::test]
async fn drafts_are_not_spoken() {
    //= VTX-QUC-001 test
    let (_serving, address) = endpoint(Some(&self_signed())).await;
    let tls = ClientTls::new(&crypto(), &Trust::Insecure, None).unwrap().for_peer(address);
    let tls = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
    let mut draft = quinn::ClientConfig::new(Arc::new(tls));
    draft.version(0xff00_001d);
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let refused = endpoint.connect_with(draft, address, "d7y").unwrap().await;
    assert_eq!(refused.unwrap_err(), ConnectionError::VersionMismatch);
}

#[tokio::test]
async fn a_signature_by_another_key_is_refused_whoever_is_trusted() {
    //= VTX-SEC-005 test
    let shown = Identity::self_signed(&crypto()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let stolen = rustls::sign::CertifiedKey::new(
        shown.certificates().to_vec(),
        provider.key_provider.load_private_key(other_key()).unwrap(),
    );
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(stolen)));
    let tls = quinn::crypto::rustls::QuicServerConfig::try_from(tls).unwrap();
    let config = quinn::ServerConfig::with_crypto(Arc::new(tls));
    let thief = quinn::Endpoint::server(config, "127.0.0.1:0".parse().unwrap()).unwrap();
    let (dialing, _) = endpoint(None).await;
    for trust in [Trust::Insecure, Trust::Pinned(shown.fingerprint().unwrap())] {
        let client = client(&trust);
        let (dialed, _) =
            tokio::join!(dialing.dial(&client, thief.local_addr().unwrap()).unwrap().established(), async {
                thief.accept().await.unwrap().await
            });
        let Err(DialError::Refused(refusal)) = dialed else { panic!("{dialed:?}") };
        assert_eq!((refusal.by, refusal.reason), (By::This, Reason::Signature), "{refusal}");
    }
}

/// An Ed25519 key that belongs to nobody's certificate.
fn other_key() -> rustls::pki_types::PrivateKeyDer<'static> {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der()).into()
}

/// Sends 16 MiB between two endpoints; returns what server and client found out of the path.
async fn paths(serving: &QuicEndpoint, to: SocketAddr, dialing: &QuicEndpoint) -> (PathStats, PathStats) {
    let insecure = client(&Trust::Insecure);
    let sent = vec![7; 16 << 20];
    let serve = async {
        let incoming = serving.accept().await.unwrap();
        let connection = serving.let_in(incoming).unwrap().await.unwrap();
        let (mut send, _receive) = connection.accept_bi().await.unwrap();
        send.write_all(&sent).await.unwrap();
        send.finish().unwrap();
        send.stopped().await.unwrap();
        connection.stats().path
    };
    let test = async {
        let connection = dialing.dial(&insecure, to).unwrap().established().await.unwrap();
        let (mut send, mut receive) = connection.open_bi().await.unwrap();
        send.finish().unwrap();
        assert!(receive.read_to_end(sent.len()).await.unwrap() == sent);
        connection.stats().path
    };
    let (server, client) = tokio::join!(serve, test);
    assert_eq!(server.black_holes_detected, 0);
    (server, client)
}

/// Where it is set, a server sends as much, and a client what every path carries, without a search.
#[tokio::test]
async fn large_datagrams_arrive() {
    for bytes in [1200, 2000, 8972, 20_000, 65_507] {
        let size = DatagramSize::new(bytes).unwrap();
        let settings = QuicSettings { largest_datagram: Some(size), ..QuicSettings::default() };
        let (serving, address) = bind(settings.clone(), Some(&self_signed())).await;
        let (dialing, _) = bind(settings, None).await;
        let (server, client) = paths(&serving, address, &dialing).await;
        assert_eq!(server.current_mtu, bytes);
        assert_eq!((client.current_mtu, client.sent_plpmtud_probes), (1200, 0));
    }
}

/// The route within a host carries all that UDP does, which is for few connections, since each keeps a buffer of the size.
/// It is tried once.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_largest_datagrams_are_for_few_connections() {
    let (serving, address) = bind(QuicSettings::default(), Some(&self_signed())).await;
    let (dialing, _) = bind(QuicSettings::default(), None).await;
    let (server, _) = paths(&serving, address, &dialing).await;
    assert_eq!((server.current_mtu, server.sent_plpmtud_probes), (65_507, 1));
    let insecure = client(&Trust::Insecure);
    let mut open = Vec::new();
    for _ in 0..64 {
        let (server, client) = tokio::join!(
            async { serving.let_in(serving.accept().await.unwrap()).unwrap().await.unwrap() },
            async { dialing.dial(&insecure, address).unwrap().established().await.unwrap() },
        );
        open.push((server, client));
    }
    let (server, _) = paths(&serving, address, &dialing).await;
    assert_eq!((server.current_mtu, server.sent_plpmtud_probes), (8972, 1));
}

#[tokio::test]
async fn a_close_is_told_although_the_congestion_window_is_full() {
    /// How the server ends the connection.
    type End = fn(&QuicEndpoint, &Connection);
    let ends: [End; 2] = [
        |_, connection| close(connection, AppCode::GoingAway, b"enough"),
        |endpoint, _| endpoint.close(AppCode::GoingAway, b"enough"),
    ];
    for end in ends {
        let deaf = Arc::new(AtomicBool::new(false));
        let network = Arc::new(TokioNetwork::default());
        let network = Arc::new(Firewalled { network, closed: deaf.clone(), lets_out: true });
        let any = "127.0.0.1:0".parse().unwrap();
        let settings = QuicSettings::default();
        let serving =
            QuicEndpoint::bind(runtime(), network, any, settings, Some(&self_signed())).await.unwrap();
        let (dialing, _) = endpoint(None).await;
        let insecure = client(&Trust::Insecure);
        let dial = async {
            let to = serving.local_addr().unwrap();
            let connection = dialing.dial(&insecure, to).unwrap().established().await.unwrap();
            let (mut send, receive) = connection.open_bi().await.unwrap();
            send.finish().unwrap();
            (connection, receive)
        };
        let accept = async {
            let connection = serving.let_in(serving.accept().await.unwrap()).unwrap().await.unwrap();
            let (send, _) = connection.accept_bi().await.unwrap();
            (connection, send)
        };
        let ((dialed, _receive), (accepted, mut send)) = tokio::join!(dial, accept);
        // What the server does not hear of stays in flight.
        deaf.store(true, Relaxed);
        let before = accepted.stats();
        send.write_all(&vec![7; 1 << 20]).await.unwrap();
        let full = before.path.cwnd - 2 * u64::from(before.path.current_mtu);
        while accepted.stats().udp_tx.bytes - before.udp_tx.bytes < full {
            tokio::task::yield_now().await;
        }
        end(&serving, &accepted);
        let ConnectionError::ApplicationClosed(told) = dialed.closed().await else { panic!("not told") };
        assert_eq!((told.error_code, &told.reason[..]), (AppCode::GoingAway.into(), &b"enough"[..]));
    }
}

#[tokio::test]
async fn datagrams_are_as_large_as_the_route_carries() {
    // Loopback carries more than the largest.
    let (serving, address) = endpoint(Some(&self_signed())).await;
    let (dialing, _) = endpoint(None).await;
    let insecure = client(&Trust::Insecure);
    let serve = async {
        let connection = serving.let_in(serving.accept().await.unwrap()).unwrap().await.unwrap();
        let (mut send, _receive) = connection.accept_bi().await.unwrap();
        send.write_all(&vec![7; 1 << 20]).await.unwrap();
        send.finish().unwrap();
        send.stopped().await.unwrap();
        connection.stats().path.current_mtu
    };
    let test = async {
        let connection = dialing.dial(&insecure, address).unwrap().established().await.unwrap();
        let (mut send, mut receive) = connection.open_bi().await.unwrap();
        send.finish().unwrap();
        receive.read_to_end(1 << 20).await.unwrap();
        connection
    };
    let (found, _connection) = tokio::join!(serve, test);
    assert_eq!(found > DatagramSize::ETHERNET.bytes(), cfg!(target_os = "linux"), "{found}");
}
