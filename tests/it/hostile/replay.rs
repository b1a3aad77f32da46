//! Early packets of a resumed connection, copied on their way.

use super::clients::EVIL;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::Mutex;
use tokio::net::UdpSocket;
use vortex_p2p::client::Ask;
use vortex_p2p::downloader::Dialer;
use vortex_p2p::store::TaskKey;
use vortex_p2p::transport::quic::{self, AppCode};

/// The first flight of a resumed connection, with requests in it, as it left the client. The server has not seen it.
pub(super) type Flight = Vec<Vec<u8>>;

/// Somebody on the path between a client and the server at `server`, who lets everything through until there is a session,
/// and then keeps for himself what the client sends early.
pub(super) async fn capture(dialer: &Dialer, server: SocketAddr, task: TaskKey) -> Flight {
    let path = Arc::new(Path::new(server).await);
    let forwarding = tokio::spawn(path.clone().forward());
    let first = dialer.quic(path.address()).await.unwrap();
    let content = first.request(Ask::new(task.piece(0))).await.unwrap().collect().await.unwrap();
    quic::close(first.connection(), AppCode::NoError, b"");

    *path.held.lock().unwrap() = Some(Vec::new());
    // Without a session this would wait for the handshake, in vain.
    let resumed = dialer.quic(path.address()).await.unwrap();
    let asking = resumed.request(Ask::new(task.piece(0)));
    let held = async {
        while !path.held.lock().unwrap().iter().flatten().any(|datagram| has_early_packet(datagram)) {
            path.seen.notified().await;
        }
    };
    tokio::select! {
        _ = asking => panic!("an answer to a request that never arrived"),
        () = held => {}
    }
    forwarding.abort();
    let flight = path.held.lock().unwrap().take().unwrap();
    assert!(content.len() > 3 * flight.concat().len(), "an answer that shows in what comes back");
    flight
}

/// Whether one of the packets in a datagram is protected by early keys (RFC 9000, 17.2).
fn has_early_packet(mut datagram: &[u8]) -> bool {
    while let Some((first, rest)) = datagram.split_first() {
        // Long header and type. The bit between them may be greased (RFC 9287).
        match first & 0xB0 {
            0x80 => {}
            0x90 => return true,
            _ => return false,
        }
        let mut rest = &rest[4..];
        for _ in ["destination", "source"] {
            let length = usize::from(rest[0]);
            rest = &rest[1 + length..];
        }
        let token = varint(&mut rest);
        rest = &rest[token..];
        let length = varint(&mut rest);
        datagram = &rest[length..];
    }
    false
}

fn varint(bytes: &mut &[u8]) -> usize {
    let length = 1 << (bytes[0] >> 6);
    let (number, rest) = bytes.split_at(length);
    *bytes = rest;
    number[1..].iter().fold(usize::from(number[0] & 0x3F), |value, byte| value << 8 | usize::from(*byte))
}

struct Path {
    to_client: UdpSocket,
    to_server: UdpSocket,
    server: SocketAddr,
    /// What is kept, once anything is.
    held: Mutex<Option<Flight>>,
    seen: tokio::sync::Notify,
}

impl Path {
    async fn new(server: SocketAddr) -> Self {
        let socket =
            async |address: Ipv4Addr| UdpSocket::bind(SocketAddr::new(address.into(), 0)).await.unwrap();
        Self {
            to_client: socket(Ipv4Addr::LOCALHOST).await,
            to_server: socket(EVIL).await,
            server,
            held: Mutex::default(),
            seen: tokio::sync::Notify::new(),
        }
    }

    fn address(&self) -> SocketAddr {
        self.to_client.local_addr().unwrap()
    }

    async fn forward(self: Arc<Self>) {
        let (mut up, mut down) = (vec![0; 1 << 16], vec![0; 1 << 16]);
        let mut client = None;
        loop {
            tokio::select! {
                received = self.to_client.recv_from(&mut up) => {
                    let (length, from) = received.unwrap();
                    client = Some(from);
                    if let Some(held) = &mut *self.held.lock().unwrap() {
                        held.push(up[..length].to_vec());
                        self.seen.notify_one();
                        continue;
                    }
                    self.to_server.send_to(&up[..length], self.server).await.unwrap();
                }
                received = self.to_server.recv_from(&mut down) => {
                    let (length, _) = received.unwrap();
                    self.to_client.send_to(&down[..length], client.unwrap()).await.unwrap();
                }
            }
        }
    }
}
