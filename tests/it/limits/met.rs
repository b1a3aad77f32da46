//! Each limit, met over real sockets, and what Prometheus is told of it. The match has no arm for the rest: a new limit has to be
//! met here as well.

use super::{Trouble, Troubled, last_error, limited, request};
use crate::peers::{Served, content};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use vortex_p2p::client::Ask;
use vortex_p2p::metrics::Exposition;
use vortex_p2p::server::{Limit, ServerLimits, ServerSettings, StorageServer};
use vortex_p2p::session::Deadlines;
use vortex_p2p::store::TaskKey;
use vortex_p2p::transport::quic::QuicSettings;
use vortex_p2p::wire::PieceKind;

const MIB: u64 = 1 << 20;

/// The samples of `name` in a scrape, by limit.
fn sample(text: &str, name: &str, limit: Limit) -> Option<u64> {
    let begin = format!("{name}{{limit=\"{}\"}} ", limit.name());
    let mut found = text.lines().filter_map(|line| line.strip_prefix(&begin));
    let value = found.next().map(|value| value.parse().unwrap());
    assert_eq!(found.next(), None, "{begin}");
    value
}

fn scrape(server: &StorageServer) -> String {
    Exposition::default().server(&server.stats(), server.settings()).unwrap().text().unwrap()
}

#[tokio::test]
async fn each_limit_is_shown_as_it_is_set() {
    let rate = |value| NonZeroU64::new(value).unwrap();
    let limits = ServerLimits {
        connections: 11,
        connections_per_address: 12,
        half_open: 13,
        answers_per_connection: 14,
        answers: 15,
        memory_per_connection: 1 << 16,
        memory: 17,
        windows: 23,
        bandwidth: Some(rate(18)),
        requests: Some(rate(19)),
        least_rate: rate(20),
    };
    let (request, answer) = (Duration::from_secs(21), Duration::from_secs(22));
    let deadlines = Deadlines { request, answer, ..Deadlines::default() };
    let settings = ServerSettings { limits, deadlines, ..ServerSettings::default() };
    let served = Served::new(settings).await;
    let shown = scrape(&served.server);
    for limit in Limit::ALL {
        let set = match limit {
            Limit::Connections => 11,
            Limit::ConnectionsPerAddress => 12,
            Limit::HalfOpen => 13,
            Limit::AnswersPerConnection => 14,
            Limit::Answers => 15,
            Limit::Memory => 17,
            Limit::Windows => 23,
            Limit::Bandwidth => 18,
            Limit::Requests => 19,
            Limit::LeastRate => 20,
            Limit::RequestDeadline => 21,
            Limit::AnswerDeadline => 22,
        };
        assert_eq!(sample(&shown, "vortex_limit", limit), Some(set), "{limit:?}");
        assert_eq!(sample(&shown, "vortex_limit_met_total", limit), Some(0), "{limit:?}");
    }
    // Where there is none, none is shown.
    let unlimited = scrape(&Served::new(ServerSettings::default()).await.server);
    assert_eq!(sample(&unlimited, "vortex_limit", Limit::Requests), None);
}

/// Settings under which `limit` is met soon.
fn tight(limit: Limit) -> ServerSettings {
    let rate = |value| NonZeroU64::new(value).unwrap();
    let soon = Duration::from_millis(50);
    let within = |deadlines| ServerSettings { deadlines, ..ServerSettings::default() };
    match limit {
        Limit::Connections => limited(|limits| limits.connections = 1),
        Limit::ConnectionsPerAddress => limited(|limits| limits.connections_per_address = 1),
        Limit::HalfOpen => limited(|limits| limits.half_open = 0),
        Limit::AnswersPerConnection => limited(|limits| limits.answers_per_connection = 0),
        Limit::Answers => limited(|limits| limits.answers = 0),
        Limit::Memory => {
            let mut settings = within(Deadlines { answer: soon, ..Deadlines::default() });
            settings.limits.memory = 1 << 10;
            settings
        }
        Limit::Windows => limited(|limits| limits.windows = 0),
        // The burst is a tenth of it.
        Limit::Bandwidth => limited(|limits| limits.bandwidth = Some(rate(20 * MIB))),
        Limit::Requests => limited(|limits| limits.requests = Some(rate(10))),
        Limit::LeastRate => {
            let mut settings = within(Deadlines { progress: soon, ..Deadlines::default() });
            settings.limits.least_rate = rate(1 << 40);
            settings
        }
        Limit::RequestDeadline => within(Deadlines { request: soon, ..Deadlines::default() }),
        Limit::AnswerDeadline => within(Deadlines { answer: soon, ..Deadlines::default() }),
    }
}

/// Meets `limit`; what is said of it has come back when this returns.
async fn meet(limit: Limit, served: &mut Served) {
    let large = |served: &Served| {
        let (store, whole) = (served.store.clone(), content(40 << 20));
        async move { insert(&store, &whole).await }
    };
    match limit {
        Limit::Connections | Limit::ConnectionsPerAddress => {
            let _first = TcpStream::connect(served.tcp).await.unwrap();
            let mut above = TcpStream::connect(served.tcp).await.unwrap();
            last_error(&mut above).await;
        }
        Limit::HalfOpen => drop(served.quic().await),
        Limit::AnswersPerConnection | Limit::Answers => {
            let mut stream = TcpStream::connect(served.tcp).await.unwrap();
            stream.write_all(&request()).await.unwrap();
            let mut head = [0; 7];
            stream.read_exact(&mut head).await.unwrap();
            assert_eq!((head[1], head[6]), (0xFF, 3));
        }
        Limit::Memory => {
            let key = large(served).await;
            let mut first = TcpStream::connect(served.tcp).await.unwrap();
            first.write_all(&key.piece(0).encode(1)).await.unwrap();
            first.read_exact(&mut [0; 100]).await.unwrap();
            let mut second = TcpStream::connect(served.tcp).await.unwrap();
            second.write_all(&key.piece(0).encode(1)).await.unwrap();
            let mut head = [0; 7];
            second.read_exact(&mut head).await.unwrap();
            assert_eq!((head[1], head[6]), (0xFF, 3));
        }
        Limit::Windows => {
            let key = insert(&served.store, &content(64 << 10)).await;
            served.quic().await.request(Ask::new(key.piece(0))).await.unwrap().collect().await.unwrap();
        }
        Limit::Bandwidth => {
            let key = insert(&served.store, &content(3 << 20)).await;
            served.quic().await.request(Ask::new(key.piece(0))).await.unwrap().collect().await.unwrap();
        }
        Limit::Requests => {
            let client = served.quic().await;
            for _ in 0..3 {
                let nobodys = TaskKey { kind: PieceKind::Cache, id: "ab".repeat(32).parse().unwrap() };
                client.request(Ask::new(nobodys.piece(0))).await.unwrap_err();
            }
        }
        Limit::LeastRate => {
            let key = large(served).await;
            let mut stream = TcpStream::connect(served.tcp).await.unwrap();
            stream.write_all(&key.piece(0).encode(1)).await.unwrap();
            stream.read_exact(&mut [0; 100]).await.unwrap();
            // It ends once the answer does, which nobody reads.
            served.server.shutdown().await;
        }
        Limit::RequestDeadline => {
            let mut stream = TcpStream::connect(served.tcp).await.unwrap();
            stream.write_all(&request()[..3]).await.unwrap();
            last_error(&mut stream).await;
        }
        Limit::AnswerDeadline => {
            let key = insert(&served.store, &content(10)).await;
            let store = Arc::new(Troubled(served.store.clone(), Trouble::Silence));
            let settings = *served.server.settings();
            served.serve(StorageServer::new(served.runtime.clone(), store, settings)).await;
            served.quic().await.request(Ask::new(key.piece(0))).await.unwrap_err();
        }
    }
}

/// A task of one piece.
async fn insert(store: &vortex_p2p::store::MemoryStore, whole: &bytes::Bytes) -> TaskKey {
    use vortex_p2p::store::NewTask;
    use vortex_p2p::wire::{Algorithm, Division, PieceLength, TaskId};
    let key = TaskKey { kind: PieceKind::Piece, id: TaskId::from_sha256([9; 32]) };
    let division = Division::new(whole.len() as u64, PieceLength::MAX).unwrap();
    store.insert(NewTask { key, division, digest: None }, Algorithm::Crc32, whole).await.unwrap();
    key
}

#[tokio::test]
async fn each_limit_that_is_met_is_counted_and_no_other() {
    for limit in Limit::ALL {
        // Loopback needs no more than the default.
        let least = if limit == Limit::Windows { 4 << 10 } else { QuicSettings::default().least_send_window };
        let quic = QuicSettings { least_send_window: least, ..QuicSettings::default() };
        let mut served = Served::over(quic, tight(limit)).await;
        meet(limit, &mut served).await;
        let told = scrape(&served.server);
        for other in Limit::ALL {
            let count = sample(&told, "vortex_limit_met_total", other).unwrap();
            assert_eq!(count > 0, other == limit, "{count} of {other:?} where {limit:?} was met");
        }
    }
}
