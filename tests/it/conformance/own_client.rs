//! Our client passes every case.

use super::world::{network, not_passed, runtime};
use crate::memory::LOOPBACK;
use bytes::Bytes;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use vortex_p2p::client::Ask;
use vortex_p2p::conformance::client::{Driver, Job, Outcome, Target, check};
use vortex_p2p::conformance::{RunSettings, Transport, Waits};
use vortex_p2p::downloader::{Dialer, DownloaderFactory, PoolSettings, Protocol};
use vortex_p2p::runtime::BoxFuture;
use vortex_p2p::session::Deadlines;
use vortex_p2p::transport::Network;
use vortex_p2p::transport::quic::{QuicEndpoint, QuicSettings};
use vortex_p2p::transport::tls::{ClientTls, Crypto, Trust};

/// Our pooled downloaders: they ask for each piece, one after another, and go on after a failure.
struct Ours {
    network: Arc<dyn Network>,
    deadlines: Deadlines,
}

impl Driver for Ours {
    fn fetch(&self, job: Job) -> BoxFuture<'static, Outcome> {
        Box::pin(fetch(self.network.clone(), self.deadlines, job))
    }
}

async fn fetch(network: Arc<dyn Network>, deadlines: Deadlines, job: Job) -> Outcome {
    let [peer] = job.peers[..] else {
        return Outcome::Unable("a downloader asks the one peer that it is given".to_owned());
    };
    let crypto = Crypto::new(runtime());
    let tls = Arc::new(ClientTls::new(&crypto, &Trust::Insecure, None).unwrap());
    let settings = QuicSettings::default();
    let endpoint =
        QuicEndpoint::bind(runtime(), network.clone(), LOOPBACK, settings.clone(), None).await.unwrap();
    let dialer = Dialer::new(runtime(), network, deadlines, tls).with_quic(endpoint, &settings);
    let protocol = match job.transport {
        Transport::Quic => Protocol::Quic,
        Transport::Tcp => Protocol::Tcp,
    };
    let factory = DownloaderFactory::new(&dialer, PoolSettings::default());
    let downloader = factory.downloader(protocol).unwrap();
    let (mut content, mut failed) = (Vec::new(), None);
    for number in 0..job.division.pieces() as u32 {
        let length = job.division.piece(number).map(|span| span.length);
        let ask = Ask { length, ..Ask::new(job.key.piece(number)) };
        let piece = async { downloader.request(peer, ask).await?.collect().await.map_err(Into::into) };
        let piece: Result<Vec<u8>, vortex_p2p::downloader::DownloadError> = piece.await;
        match piece {
            Ok(piece) => content.extend(piece),
            Err(error) => failed = failed.or(Some(error.to_string())),
        }
    }
    failed.map_or(Outcome::Done(Bytes::from(content)), Outcome::Failed)
}

async fn passes(transport: Transport, skipped: &[&str]) {
    let deadlines = Deadlines { first_byte: Duration::from_secs(3), ..Deadlines::default() };
    let network = network();
    let driver = Arc::new(Ours { network: network.clone(), deadlines });
    let target = Target { transport, listen: LOOPBACK, deadlines, waits: Waits::default(), driver };
    let settings = RunSettings { strict: true, ..RunSettings::default() };
    let reports = check(runtime(), network, target, &settings).await;
    let expected: BTreeSet<&str> = skipped.iter().copied().collect();
    let skips: BTreeSet<&str> =
        reports.iter().filter(|report| report.word() == "skip").map(|report| report.id).collect();
    let wrong: Vec<String> =
        not_passed(&reports).into_iter().filter(|line| !line.starts_with("skip")).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(skips, expected, "{:#?}", not_passed(&reports));
}

//= VTX-CLS-002 test
//= VTX-CLS-007 test
//= VTX-CLS-008 test
//= VTX-CNT-003 test
//= VTX-CNT-004 test
//= VTX-CNT-007 test
//= VTX-CNT-009 test
//= VTX-CNT-010 test
//= VTX-CNT-011 test
//= VTX-CNT-013 test
//= VTX-CNT-016 test
//= VTX-CNT-019 test
//= VTX-CNT-020 test
//= VTX-CNT-021 test
//= VTX-DIG-006 test
//= VTX-DIG-007 test
//= VTX-DIG-008 test
//= VTX-DIG-009 test
//= VTX-DIG-010 test
//= VTX-DIG-011 test
//= VTX-DIG-012 test
//= VTX-DIG-014 test
//= VTX-DIG-015 test
//= VTX-ERR-002 test
//= VTX-ERR-005 test
//= VTX-ERR-006 test
//= VTX-FRM-001 test
//= VTX-FRM-002 test
//= VTX-FRM-003 test
//= VTX-FRM-004 test
//= VTX-FRM-007 test
//= VTX-FRM-009 test
//= VTX-FRM-010 test
//= VTX-FRM-011 test
//= VTX-FRM-012 test
//= VTX-FRM-013 test
//= VTX-FRM-014 test
//= VTX-LIM-003 test
//= VTX-LIM-004 test
//= VTX-QUC-001 test
//= VTX-QUC-002 test
//= VTX-QUC-004 test
//= VTX-QUC-007 test
//= VTX-QUC-009 test
//= VTX-QUC-012 test
//= VTX-QUC-013 test
//= VTX-QUC-017 test
//= VTX-QUC-018 test
//= VTX-QUC-019 test
//= VTX-QUC-028 test
//= VTX-QUC-029 test
//= VTX-QUC-030 test
//= VTX-QUC-031 test
//= VTX-QUC-032 test
//= VTX-QUC-033 test
//= VTX-QUC-035 test
//= VTX-REQ-001 test
//= VTX-REQ-002 test
//= VTX-REQ-005 test
//= VTX-REQ-006 test
//= VTX-REQ-007 test
//= VTX-TAG-001 test
//= VTX-TAG-003 test
#[tokio::test(start_paused = true)]
async fn our_client_passes_every_case_over_quic() {
    passes(Transport::Quic, &["VTX-EXT-005", "VTX-SEC-008"]).await;
}

//= VTX-CLS-009 test
//= VTX-TCP-016 test
//= VTX-TCP-017 test
//= VTX-TCP-018 test
//= VTX-TCP-020 test
#[tokio::test(start_paused = true)]
async fn our_client_passes_every_case_over_tcp() {
    passes(Transport::Tcp, &["VTX-EXT-004", "VTX-EXT-005", "VTX-SEC-008"]).await;
}
