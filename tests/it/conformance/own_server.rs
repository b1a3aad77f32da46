//! Our server passes every case.

use super::world::{content, division, fixture, key, network, not_passed, runtime};
use crate::memory::LOOPBACK;
use std::net::SocketAddr;
use std::sync::Arc;
use vortex_p2p::conformance::server::{Fixture, Target, check};
use vortex_p2p::conformance::{RunSettings, Summary, Transport, Waits};
use vortex_p2p::server::{ServerSettings, StorageServer};
use vortex_p2p::session::Deadlines;
use vortex_p2p::store::{MemoryStore, NewTask, PieceStore, TaskKey};
use vortex_p2p::transport::Network;
use vortex_p2p::transport::quic::{QuicEndpoint, QuicSettings};
use vortex_p2p::transport::tls::{Admission, Crypto, Identity, ServerIdentity, ServerTls};
use vortex_p2p::wire::{Algorithm, PieceKind};

struct Served {
    fixture: Fixture,
    quic: SocketAddr,
    tcp: SocketAddr,
    _server: StorageServer,
}

async fn insert(store: &MemoryStore, key: TaskKey, content: &bytes::Bytes, algorithm: Algorithm) {
    let task = NewTask { key, division: division(content.len()), digest: None };
    store.insert(task, algorithm, content).await.unwrap();
}

async fn serve(network: Arc<dyn Network>, algorithm: Algorithm) -> Served {
    let runtime = runtime();
    let store = MemoryStore::new(runtime.clone());
    let mut fixture = fixture();
    insert(&store, fixture.key, fixture.content.as_ref().unwrap(), algorithm).await;
    let empty = key(PieceKind::Cache, b"");
    insert(&store, empty, &bytes::Bytes::new(), algorithm).await;
    let other = content(777);
    let damaged = key(PieceKind::Persistent, &other);
    insert(&store, damaged, &other, algorithm).await;
    store.mark_damaged(damaged.piece(0)).await.unwrap();
    let absent = key(PieceKind::PersistentCache, b"not here");
    store.create(NewTask { key: absent, division: division(1), digest: None }).await.unwrap();
    fixture.empty = Some(empty);
    fixture.damaged = Some(damaged.piece(0));
    fixture.absent = Some(absent.piece(0));

    let server = StorageServer::new(runtime.clone(), Arc::new(store), ServerSettings::default());
    let crypto = Crypto::new(runtime.clone());
    let identity = ServerIdentity::new(Identity::self_signed(&crypto).unwrap());
    let tls = ServerTls::new(&crypto, &identity, &Admission::Anyone).unwrap();
    let endpoint =
        QuicEndpoint::bind(runtime.clone(), network.clone(), LOOPBACK, QuicSettings::default(), Some(&tls));
    let endpoint = endpoint.await.unwrap();
    let quic = endpoint.local_addr().unwrap();
    server.serve_quic(endpoint);
    let listener = network.listen(LOOPBACK).await.unwrap();
    let tcp = listener.local_addr().unwrap();
    server.serve_tcp(listener);
    Served { fixture, quic, tcp, _server: server }
}

async fn passes(transport: Transport) {
    let network = network();
    let served = serve(network.clone(), Algorithm::Crc32).await;
    let address = match transport {
        Transport::Quic => served.quic,
        Transport::Tcp => served.tcp,
    };
    let fixture = served.fixture.clone();
    let target =
        Target { transport, address, fixture, deadlines: Deadlines::default(), waits: Waits::default() };
    let settings = RunSettings { strict: true, ..RunSettings::default() };
    let reports = check(runtime(), network, target, &settings).await;
    // The server sends one algorithm, and so shows nothing of the others.
    let hashes = |line: &String| !line.contains("VTX-DIG-005");
    let wrong: Vec<String> = not_passed(&reports).into_iter().filter(hashes).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(Summary::of(&reports).passed + 1, reports.len());
}

//= VTX-CLS-002 test
//= VTX-CLS-003 test
//= VTX-CLS-004 test
//= VTX-CLS-006 test
//= VTX-CNT-001 test
//= VTX-CNT-002 test
//= VTX-CNT-005 test
//= VTX-CNT-006 test
//= VTX-CNT-008 test
//= VTX-CNT-012 test
//= VTX-CNT-014 test
//= VTX-CNT-017 test
//= VTX-DIG-001 test
//= VTX-DIG-002 test
//= VTX-DIG-003 test
//= VTX-DIG-004 test
//= VTX-ERR-001 test
//= VTX-ERR-003 test
//= VTX-ERR-004 test
//= VTX-ERR-007 test
//= VTX-ERR-008 test
//= VTX-ERR-009 test
//= VTX-ERR-011 test
//= VTX-EXT-001 test
//= VTX-FRM-001 test
//= VTX-FRM-002 test
//= VTX-FRM-003 test
//= VTX-FRM-004 test
//= VTX-FRM-005 test
//= VTX-FRM-006 test
//= VTX-FRM-008 test
//= VTX-FRM-009 test
//= VTX-FRM-011 test
//= VTX-FRM-012 test
//= VTX-FRM-013 test
//= VTX-FRM-014 test
//= VTX-LIM-001 test
//= VTX-LIM-002 test
//= VTX-QUC-001 test
//= VTX-QUC-003 test
//= VTX-QUC-005 test
//= VTX-QUC-006 test
//= VTX-QUC-007 test
//= VTX-QUC-009 test
//= VTX-QUC-010 test
//= VTX-QUC-011 test
//= VTX-QUC-014 test
//= VTX-QUC-015 test
//= VTX-QUC-016 test
//= VTX-QUC-018 test
//= VTX-QUC-019 test
//= VTX-QUC-020 test
//= VTX-QUC-021 test
//= VTX-QUC-022 test
//= VTX-QUC-023 test
//= VTX-QUC-024 test
//= VTX-QUC-025 test
//= VTX-QUC-035 test
//= VTX-REQ-003 test
//= VTX-REQ-004 test
//= VTX-REQ-005 test
//= VTX-REQ-006 test
//= VTX-REQ-007 test
//= VTX-REQ-010 test
//= VTX-REQ-011 test
//= VTX-REQ-012 test
//= VTX-REQ-013 test
//= VTX-REQ-014 test
//= VTX-REQ-015 test
//= VTX-SEC-009 test
//= VTX-TAG-001 test
//= VTX-TAG-002 test
//= VTX-TAG-003 test
//= VTX-TAG-004 test
#[tokio::test(start_paused = true)]
async fn our_server_passes_every_case_over_quic() {
    passes(Transport::Quic).await;
}

//= VTX-CLS-005 test
//= VTX-FRM-010 test
//= VTX-TCP-001 test
//= VTX-TCP-002 test
//= VTX-TCP-003 test
//= VTX-TCP-004 test
//= VTX-TCP-005 test
//= VTX-TCP-006 test
//= VTX-TCP-007 test
//= VTX-TCP-008 test
//= VTX-TCP-009 test
//= VTX-TCP-011 test
//= VTX-TCP-012 test
//= VTX-TCP-013 test
#[tokio::test(start_paused = true)]
async fn our_server_passes_every_case_over_tcp() {
    passes(Transport::Tcp).await;
}
