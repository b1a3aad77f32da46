//! Honest clients.

use super::victim::Victim;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use vortex_p2p::client::Ask;
use vortex_p2p::downloader::{Dialer, DownloadError, DownloaderFactory, Peer, PoolSettings};
use vortex_p2p::runtime::{SharedRuntime, TokioRuntime};
use vortex_p2p::session::Deadlines;
use vortex_p2p::store::TaskKey;
use vortex_p2p::transport::quic::{QuicEndpoint, QuicSettings};
use vortex_p2p::transport::tls::{ClientTls, Crypto, Trust};
use vortex_p2p::transport::{SocketSettings, TokioNetwork};

/// The attacker's address; the honest client has another.
pub(super) const EVIL: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 66);

/// What dials from `address` and trusts everybody.
pub(super) async fn dialer(address: Ipv4Addr) -> Dialer {
    let runtime: SharedRuntime = Arc::new(TokioRuntime);
    let network = Arc::new(TokioNetwork::new(SocketSettings::default()));
    let tls = ClientTls::new(&Crypto::new(runtime.clone()), &Trust::Insecure, None).unwrap();
    let settings = QuicSettings::default();
    let bind = SocketAddr::new(address.into(), 0);
    let endpoint = QuicEndpoint::bind(runtime.clone(), network.clone(), bind, settings.clone(), None);
    let dialer = Dialer::new(runtime, network, Deadlines::default(), Arc::new(tls));
    dialer.with_quic(endpoint.await.unwrap(), &settings)
}

/// A client with connections of its own.
pub(super) fn client(dialer: &Dialer) -> DownloaderFactory {
    DownloaderFactory::new(dialer, PoolSettings::default())
}

/// Fetches a piece, all of it or up to `give_up_after` bytes, and compares what came. Returns how many bytes that were.
pub(super) async fn fetch(
    client: &DownloaderFactory,
    peer: Peer,
    (key, number): (TaskKey, u32),
    expected: &[u8],
    give_up_after: Option<usize>,
) -> Result<usize, DownloadError> {
    let downloader = client.downloader(peer.protocol)?;
    let mut answer = downloader.request(peer.address, Ask::new(key.piece(number))).await?;
    let mut taken = 0;
    while let Some(bytes) = answer.chunk().await? {
        assert!(expected[taken..].starts_with(&bytes), "other bytes than were imported");
        taken += bytes.len();
        if give_up_after.is_some_and(|limit| taken >= limit) {
            return Ok(taken);
        }
    }
    assert_eq!(taken, expected.len());
    Ok(taken)
}

/// Fetches one piece of the largest task.
pub(super) async fn fetch_one(client: &DownloaderFactory, victim: &Victim, peer: Peer, at: u32) -> bool {
    let largest = victim.tasks.len() - 1;
    let expected = victim.piece(largest, at);
    fetch(client, peer, (victim.tasks[largest], at), expected, None).await.is_ok()
}
