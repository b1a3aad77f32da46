//! Sessions that are resumed, early data, and what must not survive in them.

use super::pki::{ANSWER, Ca, REQUEST, Valid, crypto, runtime, server};
use super::quic::{answer, ask, bind, client, endpoint, exchange_at, self_signed};
use super::tcp;
use super::world::{DATE, World};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use vortex_p2p::transport::quic::{AppCode, DialError, QuicClient, QuicEndpoint, QuicSettings, close};
use vortex_p2p::transport::tls::{
    self, Admission, By, ClientTls, Crypto, Reason, Refusal, ServerIdentity, ServerTls, Trust,
};
use vortex_p2p::transport::{Network, TokioNetwork};

/// Answers one connection after the other, without end.
async fn serve(serving: &QuicEndpoint) {
    loop {
        answer(serving.accept().await.unwrap()).await;
    }
}

#[tokio::test]
async fn a_session_is_resumed_with_early_data_once_and_only_where_it_was_made() {
    //= VTX-QUC-045 test
    let (serving, address) = endpoint(Some(&self_signed())).await;
    let (elsewhere, other_address) = endpoint(Some(&self_signed())).await;
    let (dialing, _) = endpoint(None).await;
    let test = async {
        let insecure = client(&Trust::Insecure);
        let first = dialing.dial(&insecure, address).unwrap();
        let first = first.into_early().expect_err("nothing to resume yet").established().await.unwrap();
        assert_eq!(ask(&first).await.unwrap(), ANSWER);
        close(&first, AppCode::NoError, b"");

        // Another server of the same name, and another trust, have no share in that session.
        assert!(dialing.dial(&insecure, other_address).unwrap().into_early().is_err());
        assert!(dialing.dial(&client(&Trust::Insecure), address).unwrap().into_early().is_err());

        let (connection, early) = dialing.dial(&insecure, address).unwrap().into_early().unwrap();
        // The request is written before the handshake can have completed: nothing has been awaited since.
        let (mut send, mut receive) = connection.open_bi().await.unwrap();
        send.write_all(REQUEST).await.unwrap();
        send.finish().unwrap();
        assert!(early.accepted().await.unwrap());
        assert_eq!(receive.read_to_end(1 << 10).await.unwrap(), ANSWER);
        close(&connection, AppCode::NoError, b"");
    };
    tokio::select! {
        () = test => {}
        () = serve(&serving) => {}
    }
    drop(elsewhere);
}

#[tokio::test]
async fn early_data_of_a_forgotten_session_is_rejected_and_the_connection_goes_on() {
    let (serving, address) = endpoint(Some(&self_signed())).await;
    let (dialing, _) = endpoint(None).await;
    let insecure = client(&Trust::Insecure);
    let test = async {
        let first = dialing.dial(&insecure, address).unwrap().established().await.unwrap();
        assert_eq!(ask(&first).await.unwrap(), ANSWER);
        close(&first, AppCode::NoError, b"");

        serving.serve(Some(&self_signed())).unwrap();
        let (connection, early) = dialing.dial(&insecure, address).unwrap().into_early().unwrap();
        let (mut send, mut receive) = connection.open_bi().await.unwrap();
        send.write_all(REQUEST).await.unwrap();
        send.finish().unwrap();
        assert!(!early.accepted().await.unwrap());
        let void = receive.read_to_end(1 << 10).await.unwrap_err();
        assert_eq!(void, quinn::ReadToEndError::Read(quinn::ReadError::ZeroRttRejected));
        assert_eq!(ask(&connection).await.unwrap(), ANSWER);
    };
    tokio::select! {
        () = test => {}
        () = serve(&serving) => {}
    }
}

#[tokio::test]
async fn early_data_can_be_turned_off_on_either_side() {
    //= VTX-QUC-036 test
    for (client_on, server_on) in [(false, true), (true, false), (true, true)] {
        let with = |early_data| QuicSettings { early_data, ..QuicSettings::default() };
        let (serving, address) = bind(with(server_on), Some(&self_signed())).await;
        let (dialing, _) = endpoint(None).await;
        let tls = Arc::new(ClientTls::new(&crypto(), &Trust::Insecure, None).unwrap());
        let client = QuicClient::new(runtime(), &with(client_on), tls);
        let test = async {
            let first = dialing.dial(&client, address).unwrap().established().await.unwrap();
            ask(&first).await.unwrap();
            close(&first, AppCode::NoError, b"");
            let second = dialing.dial(&client, address).unwrap().into_early();
            assert_eq!(second.is_ok(), client_on && server_on);
        };
        tokio::select! {
            () = test => {}
            () = serve(&serving) => {}
        }
    }
}

#[tokio::test]
async fn nothing_goes_early_where_clients_show_who_they_are() {
    //= VTX-QUC-043 test
    let ca = Ca::new("ours");
    let demanding = server(ca.issue("d7y", Valid::Now), &Admission::Authorities(ca.authorities.clone()));
    let (serving, address) = endpoint(Some(&demanding)).await;
    let (dialing, _) = endpoint(None).await;
    let tls = ClientTls::new(&crypto(), &Trust::Insecure, Some(&ca.issue("peer", Valid::Now))).unwrap();
    let client = QuicClient::new(runtime(), &QuicSettings::default(), Arc::new(tls));
    let test = async {
        let first = dialing.dial(&client, address).unwrap().established().await.unwrap();
        assert_eq!(ask(&first).await.unwrap(), ANSWER);
        close(&first, AppCode::NoError, b"");
        assert!(dialing.dial(&client, address).unwrap().into_early().is_err());
    };
    tokio::select! {
        () = test => {}
        () = serve(&serving) => {}
    }
}

/// A client and a server in one world. The certificate of the first is good for an hour if `client_expires`, that of the
/// second if not; the other one lasts.
fn an_hour(world: &Arc<World>, client_expires: bool) -> (ClientTls, ServerTls) {
    let ca = Ca::new("ours");
    let crypto = Crypto::new(world.clone());
    let hour = |name, expires| match expires {
        true => ca.issue_until(name, DATE + Duration::from_secs(3600)),
        false => ca.issue(name, Valid::Now),
    };
    let trust = Trust::authorities(ca.authorities.clone());
    let client = ClientTls::new(&crypto, &trust, Some(&hour("peer", client_expires))).unwrap();
    let admission = match client_expires {
        true => Admission::Authorities(ca.authorities.clone()),
        false => Admission::Anyone,
    };
    let identity = ServerIdentity::new(hour("d7y", !client_expires));
    (client, ServerTls::new(&crypto, &identity, &admission).unwrap())
}

#[tokio::test]
async fn a_session_does_not_outlive_the_certificate_of_its_server() {
    //= VTX-SEC-007 test
    let world = World::new(1);
    let (client, server) = an_hour(&world, false);
    let (serving, address) = endpoint(Some(&server)).await;
    let (dialing, _) = endpoint(None).await;
    let client = Arc::new(client);
    let quic = QuicClient::new(world.clone(), &QuicSettings::default(), client.clone());
    let dial = || dialing.dial(&quic, address).unwrap();
    let refused = |error: DialError| {
        let DialError::Refused(refusal) = error else { panic!("{error:?}") };
        assert_eq!((refusal.by, refusal.reason), (By::This, Reason::Dates), "{refusal}");
    };
    let mut listener = tcp::listener().await;
    let test = async {
        let first = dial().established().await.unwrap();
        assert_eq!(ask(&first).await.unwrap(), ANSWER);
        close(&first, AppCode::NoError, b"");
        assert_eq!(tcp::exchange_at(&mut *listener, &client, &server).await, (Ok(()), Ok(())));

        world.pass(Duration::from_secs(3601));
        let (_connection, early) = dial().into_early().expect("a session to resume");
        refused(early.accepted().await.unwrap_err());
        refused(dial().established().await.unwrap_err());
        let listener_address = listener.local_addr().unwrap();
        let stream = TokioNetwork::default().connect(listener_address).await.unwrap();
        let accept = async { tls::accept(&server, listener.accept().await.unwrap().0).await.unwrap() };
        let (connected, _accepted) = tokio::join!(tls::connect(&client, listener_address, stream), accept);
        let refusal = Refusal::from_io(&connected.err().unwrap()).unwrap();
        assert_eq!((refusal.by, refusal.reason), (By::This, Reason::Dates), "{refusal}");
    };
    tokio::select! {
        () = test => {}
        () = serve(&serving) => {}
    }
}

#[tokio::test]
async fn a_session_does_not_outlive_the_certificate_of_its_client() {
    //= VTX-SEC-006 test
    let world = World::new(1);
    let (client, server) = an_hour(&world, true);
    let (serving, _) = endpoint(Some(&server)).await;
    let client = Arc::new(client);
    let quic = QuicClient::new(world.clone(), &QuicSettings::default(), client.clone());
    let mut listener = tcp::listener().await;
    for good in [true, false] {
        let over_tcp = tcp::exchange_at(&mut *listener, &client, &server).await;
        let over_quic = exchange_at(&serving, &quic).await;
        for (client, server) in [over_tcp, over_quic] {
            match good {
                true => assert_eq!((client, server), (Ok(()), Ok(()))),
                false => {
                    assert_eq!(client.map_err(|refusal| refusal.reason), Err(Reason::Dates));
                    assert_eq!(server.map_err(|refusal| refusal.reason), Err(Reason::Dates));
                }
            }
        }
        world.pass(Duration::from_secs(3601));
    }
}

/// Passes datagrams on between one client and one server.
async fn relay(near: &tokio::net::UdpSocket, server: SocketAddr) {
    let far = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut client = None;
    let (mut up, mut down) = ([0; 2048], [0; 2048]);
    loop {
        tokio::select! {
            received = near.recv_from(&mut up) => {
                let (count, from) = received.unwrap();
                client = Some(from);
                far.send_to(&up[..count], server).await.unwrap();
            }
            received = far.recv(&mut down) => {
                near.send_to(&down[..received.unwrap()], client.unwrap()).await.unwrap();
            }
        }
    }
}

#[tokio::test]
async fn early_data_that_is_replayed_is_not_taken() {
    //= VTX-QUC-040 test
    let tls = self_signed();
    let (dialing, _) = endpoint(None).await;
    let insecure = client(&Trust::Insecure);
    let near = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = near.local_addr().unwrap();
    let (serving, real) = endpoint(Some(&tls)).await;
    let first = async {
        let first = dialing.dial(&insecure, address).unwrap().established().await.unwrap();
        assert_eq!(ask(&first).await.unwrap(), ANSWER);
        close(&first, AppCode::NoError, b"");
    };
    tokio::select! {
        () = first => {}
        () = serve(&serving) => {}
        () = relay(&near, real) => {}
    }

    // Now somebody on the path keeps what the client sends, and passes it to two servers with the same sessions.
    let settings = QuicSettings { idle_timeout: Duration::from_secs(1), ..QuicSettings::default() };
    let (once, to_once) = bind(settings.clone(), Some(&tls)).await;
    let (again, to_again) = bind(settings, Some(&tls)).await;
    let (connection, _early) = dialing.dial(&insecure, address).unwrap().into_early().unwrap();
    let (mut send, _receive) = connection.open_bi().await.unwrap();
    send.write_all(REQUEST).await.unwrap();
    send.finish().unwrap();

    let (mut kept, mut datagram) = (Vec::new(), [0; 2048]);
    let taken = async {
        let (connection, _) = once.accept().await.unwrap().accept().unwrap().into_0rtt().unwrap();
        let (_, mut request) = connection.accept_bi().await.unwrap();
        assert_eq!(request.read_to_end(1 << 10).await.unwrap(), REQUEST);
    };
    let passing = async {
        loop {
            let (count, from) = near.recv_from(&mut datagram).await.unwrap();
            // What the first connection had to say goes nowhere: these servers do not know it.
            if from == dialing.local_addr().unwrap() {
                near.send_to(&datagram[..count], to_once).await.unwrap();
                kept.push(datagram[..count].to_vec());
            }
        }
    };
    tokio::select! {
        () = taken => {}
        () = passing => {}
    }
    for datagram in &kept {
        near.send_to(datagram, to_again).await.unwrap();
    }
    let (connection, _) = again.accept().await.unwrap().accept().unwrap().into_0rtt().unwrap();
    let request = connection.accept_bi().await.map(drop);
    assert_eq!(request, Err(quinn::ConnectionError::TimedOut), "the ticket is good once");
}
