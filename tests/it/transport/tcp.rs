//! Byte streams of the kernel.

use super::pki::{ANSWER, REQUEST};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use vortex_p2p::transport::tls::{self, ClientTls, Refusal, ServerTls};
use vortex_p2p::transport::{Listener, Network, TokioNetwork};

/// One request and its answer over TLS; what the client and the server are told.
pub(super) async fn exchange(
    client: &ClientTls,
    server: &ServerTls,
) -> (Result<(), Refusal>, Result<(), Refusal>) {
    exchange_at(&mut *listener().await, client, server).await
}

pub(super) async fn listener() -> Box<dyn Listener> {
    TokioNetwork::default().listen("127.0.0.1:0".parse().unwrap()).await.unwrap()
}

/// As [`exchange`], at a given place.
pub(super) async fn exchange_at(
    listener: &mut dyn Listener,
    client: &ClientTls,
    server: &ServerTls,
) -> (Result<(), Refusal>, Result<(), Refusal>) {
    let address = listener.local_addr().unwrap();
    let asking = async {
        let stream = TokioNetwork::default().connect(address).await?;
        let mut stream = tls::connect(client, address, stream).await?;
        stream.write_all(REQUEST).await?;
        stream.flush().await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        assert_eq!(answer, ANSWER);
        Ok(())
    };
    let answering = async {
        let (stream, _) = listener.accept().await?;
        let mut stream = tls::accept(server, stream).await?;
        let mut request = [0; REQUEST.len()];
        stream.read_exact(&mut request).await?;
        assert_eq!(request, REQUEST);
        stream.write_all(ANSWER).await?;
        stream.shutdown().await
    };
    let (asked, answered) = tokio::join!(asking, answering);
    (asked.map_err(told), answered.map_err(told))
}

fn told(error: io::Error) -> Refusal {
    Refusal::from_io(&error).unwrap_or_else(|| panic!("no refusal: {error:?}"))
}

#[tokio::test]
async fn a_listener_for_both_families_names_addresses_as_they_are() {
    let network = TokioNetwork::default();
    let mut listener = network.listen("[::]:0".parse().unwrap()).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    for ip in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
        let (connected, accepted) = tokio::join!(network.connect((ip, port).into()), listener.accept());
        let (stream, from) = accepted.unwrap();
        assert_eq!(from.ip(), ip);
        for stream in [connected.unwrap(), stream] {
            let socket = stream.socket().unwrap();
            assert!(socket.nodelay().unwrap());
            assert!(socket2::SockRef::from(socket).keepalive().unwrap());
        }
    }
}
