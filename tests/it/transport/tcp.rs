//! Byte streams of the kernel.

use super::pki::{ANSWER, REQUEST, crypto, server};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;
use vortex_p2p::transport::tls::{self, Admission, ClientTls, Identity, Refusal, ServerTls, Trust};
use vortex_p2p::transport::{ByteStream, Listener, Network, SocketSettings, TokioNetwork};

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

#[tokio::test]
async fn protected_tcp_is_tls_1_3_from_its_first_byte() {
    //= VTX-TCP-021 test
    let client = ClientTls::new(&crypto(), &Trust::Insecure, None).unwrap();
    let mut listener = listener().await;
    let address = listener.local_addr().unwrap();
    // What a client says first.
    let dialing = async {
        let stream = TokioNetwork::default().connect(address).await.unwrap();
        assert!(tls::connect(&client, address, stream).await.is_err(), "nobody shakes hands here");
    };
    let listening = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut acceptor = rustls::server::Acceptor::default();
        loop {
            let mut bytes = [0; 1024];
            let count = stream.read(&mut bytes).await.unwrap();
            acceptor.read_tls(&mut &bytes[..count]).unwrap();
            if let Some(accepted) = acceptor.accept().unwrap_or_else(|_| panic!("no client hello")) {
                let hello = accepted.client_hello();
                assert_eq!(hello.server_name(), Some("d7y"));
                assert!(hello.alpn().is_none());
                return;
            }
        }
    };
    tokio::join!(dialing, listening);

    // What a server says to a request in plain: a TLS alert, and nothing else.
    let serving = server(Identity::self_signed(&crypto()).unwrap(), &Admission::Anyone);
    let plain = async {
        let mut stream = TokioNetwork::default().connect(address).await.unwrap();
        stream.write_all(&[0; 74]).await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(answer.is_empty() || answer[..2] == [0x15, 3], "{answer:?}");
    };
    let refusing = async {
        let (stream, _) = listener.accept().await.unwrap();
        assert!(tls::accept(&serving, stream).await.is_err());
    };
    tokio::join!(plain, refusing);

    // What the two agree on.
    let asking = async {
        let stream = TokioNetwork::default().connect(address).await.unwrap();
        let config = Arc::new(client.for_peer(address));
        let stream = TlsConnector::from(config).connect("d7y".try_into().unwrap(), stream).await.unwrap();
        let agreed = stream.get_ref().1;
        assert_eq!(agreed.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
        assert_eq!(agreed.alpn_protocol(), None);
    };
    let answering = async {
        let (stream, _) = listener.accept().await.unwrap();
        tls::accept(&serving, stream).await.unwrap()
    };
    tokio::join!(asking, answering);
}

/// Two ends of a connection.
async fn pair(network: &TokioNetwork) -> (Box<dyn ByteStream>, Box<dyn ByteStream>) {
    let mut listener = network.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (connected, accepted) = tokio::join!(network.connect(address), listener.accept());
    (connected.unwrap(), accepted.unwrap().0)
}

/// Whether the kernel would wake a reader, by a deadline that is far away where it should.
#[cfg(target_os = "linux")]
fn is_readable(stream: &dyn ByteStream, within: u16) -> bool {
    use nix::poll::{PollFd, PollFlags, poll};
    use std::os::fd::AsFd;
    let mut asked = [PollFd::new(stream.socket().unwrap().as_fd(), PollFlags::POLLIN)];
    poll(&mut asked, within).unwrap() == 1
}

/// Returns when `bytes` have arrived, whatever is waited for.
#[cfg(target_os = "linux")]
async fn arrived(stream: &dyn ByteStream, bytes: usize) {
    let socket = socket2::SockRef::from(stream.socket().unwrap());
    let mut buffer = vec![std::mem::MaybeUninit::uninit(); bytes];
    while socket.peek(&mut buffer).unwrap_or(0) < bytes {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn a_reader_is_woken_when_as_much_has_come_as_it_waits_for() {
    const SECONDS_30: u16 = 30_000;
    let (reader, mut writer) = pair(&TokioNetwork::default()).await;
    reader.wake_at(1000).unwrap();
    writer.write_all(&[7; 999]).await.unwrap();
    arrived(&*reader, 999).await;
    assert!(!is_readable(&*reader, 0));
    writer.write_all(&[7]).await.unwrap();
    assert!(is_readable(&*reader, SECONDS_30));

    // Less than there is: at once.
    reader.wake_at(2000).unwrap();
    assert!(!is_readable(&*reader, 0));
    reader.wake_at(1).unwrap();
    assert!(is_readable(&*reader, 0));

    // The end, however little came before.
    reader.wake_at(2000).unwrap();
    writer.shutdown().await.unwrap();
    assert!(is_readable(&*reader, SECONDS_30));
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn whoever_waits_for_more_than_the_kernel_holds_is_woken_when_it_holds_no_more() {
    let (reader, mut writer) = pair(&TokioNetwork::default()).await;
    reader.wake_at(usize::MAX).unwrap();
    let part = vec![7; 64 << 10];
    let filled = async {
        loop {
            writer.write_all(&part).await.unwrap();
        }
    };
    let woken = async {
        while !is_readable(&*reader, 0) {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = filled => {}
        () = woken => {}
    }
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn a_stream_that_was_connected_has_the_buffer_that_is_set() {
    let buffer = |stream: &dyn ByteStream| {
        socket2::SockRef::from(stream.socket().unwrap()).recv_buffer_size().unwrap()
    };
    let with = async |stream_buffer| {
        let network = TokioNetwork::new(SocketSettings { stream_buffer, ..SocketSettings::default() });
        let (connected, accepted) = pair(&network).await;
        (buffer(&*connected), buffer(&*accepted))
    };
    let (none, accepted) = with(0).await;
    let (some, unchanged) = with(1 << 20).await;
    assert!(some >= 1 << 20 && some > none, "{some} bytes, {none} without");
    assert_eq!(accepted, unchanged, "for answers, not for requests");
    // The kernel has its own limit; whoever asks for more gets that.
    assert!(with(usize::MAX).await.0 >= some);
}
