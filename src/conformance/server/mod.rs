//! Plays a client, good and evil, against a server.
//!
//! The server has to hold a task: [`Fixture::key`]. What else a [`Fixture`] names lets more cases be run; those that lack
//! theirs are skipped.

mod basics;
mod close;
mod dial;
mod quic;
mod quic_streams;
mod refusals;
mod talk;
mod tasks;
mod tcp;
mod tcp_ends;

use super::case::{On, Shown, skip};
use super::lane::Lane;
use super::run::{Planned, run};
use super::{CaseReport, RunSettings, Transport, Waits};
use crate::runtime::{BoxFuture, SharedRuntime};
use crate::session::Deadlines;
use crate::store::TaskKey;
use crate::transport::Network;
use crate::transport::quic::QuicEndpoint;
use crate::wire::{Division, Download, PieceKind, TaskId};
use bytes::Bytes;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;
use talk::Talk;
use tokio::sync::OnceCell;

/// What the server under test holds.
#[derive(Debug, Clone)]
pub struct Fixture {
    /// A task of which at least piece 0 is held, and is not empty. No other kind of the same id is.
    pub key: TaskKey,
    /// The content of that task, which then is held completely.
    pub content: Option<Bytes>,
    /// How that task is divided.
    pub division: Option<Division>,
    /// An empty task.
    pub empty: Option<TaskKey>,
    /// A piece whose stored bytes are known to be damaged.
    pub damaged: Option<Download>,
    /// A piece that is not held, of a task that is known.
    pub absent: Option<Download>,
}

impl Fixture {
    /// A task of which nothing else is known.
    #[must_use]
    pub fn new(key: TaskKey) -> Self {
        Self { key, content: None, division: None, empty: None, damaged: None, absent: None }
    }
}

/// The server under test.
#[derive(Debug, Clone)]
pub struct Target {
    /// The transport that it is spoken to over.
    pub transport: Transport,
    /// Where it is.
    pub address: SocketAddr,
    /// What it holds.
    pub fixture: Fixture,
    /// Its deadlines, where they differ from the defaults.
    pub deadlines: Deadlines,
    /// How patient to be.
    pub waits: Waits,
}

/// A case of the server mode, as a list shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    /// Its id.
    pub id: &'static str,
    /// What is expected.
    pub about: &'static str,
    /// Whether it is run over QUIC.
    pub quic: bool,
    /// Whether it is run over TCP.
    pub tcp: bool,
    /// Whether it waits for a deadline of the peer, and takes as long.
    pub slow: bool,
}

/// Every case, in the order in which reports list them.
#[must_use]
pub fn list() -> Vec<Listed> {
    let listed = |case: &Case| Listed {
        id: case.id,
        about: case.about,
        quic: case.on.includes(Transport::Quic),
        tcp: case.on.includes(Transport::Tcp),
        slow: case.waits != For::Nothing,
    };
    all().map(listed).collect()
}

/// Runs the cases against `target`, over its transport.
pub async fn check(
    runtime: SharedRuntime,
    network: Arc<dyn Network>,
    mut target: Target,
    settings: &RunSettings,
) -> Vec<CaseReport> {
    // What comes by a deadline did not come at once.
    let Deadlines { request, idle, .. } = target.deadlines;
    target.waits.soon = target.waits.soon.min(request.min(idle) * 4 / 5);
    let subject =
        Subject(Arc::new(Inner { runtime: runtime.clone(), network, target, endpoint: OnceCell::new() }));
    let Target { transport, deadlines, waits, .. } = &subject.target;
    let plan = all().filter(|case| case.on.includes(*transport)).map(|case| {
        let waited = match case.waits {
            For::Nothing => Duration::ZERO,
            For::Request => deadlines.request,
            For::Progress => deadlines.progress,
            For::Idle => deadlines.idle,
        };
        Planned {
            id: case.id,
            transport: *transport,
            about: case.about,
            // Time for a handshake, for requests and answers, and for what should not come and does not.
            deadline: waited + waits.soon * 4 + waits.quiet * 4,
            slow: case.waits != For::Nothing,
            run: (case.run)(subject.clone()),
        }
    });
    let plan = plan.collect();
    run(&runtime, settings, plan).await
}

/// A case.
struct Case {
    id: &'static str,
    on: On,
    waits: For,
    about: &'static str,
    run: fn(Subject) -> BoxFuture<'static, Shown>,
}

/// What a case waits for beside answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum For {
    Nothing,
    Request,
    Progress,
    Idle,
}

/// A table of cases: id, transports, what is waited for, what is expected, how it is shown.
macro_rules! cases {
    ($($id:literal $on:ident $waits:ident $about:literal => $run:expr;)*) => {
        pub(super) const CASES: &[$crate::conformance::server::Case] = &[$(
            $crate::conformance::server::Case {
                id: $id,
                on: $crate::conformance::case::On::$on,
                waits: $crate::conformance::server::For::$waits,
                about: $about,
                run: |subject| Box::pin(($run)(subject)),
            },
        )*];
    };
}
use cases;

fn all() -> impl Iterator<Item = &'static Case> {
    [
        basics::CASES,
        tasks::CASES,
        refusals::CASES,
        close::CASES,
        tcp::CASES,
        tcp_ends::CASES,
        quic::CASES,
        quic_streams::CASES,
    ]
    .into_iter()
    .flatten()
}

/// The server under test, and the world it is reached through.
#[derive(Clone)]
struct Subject(Arc<Inner>);

struct Inner {
    runtime: SharedRuntime,
    network: Arc<dyn Network>,
    target: Target,
    /// From which QUIC connections are made.
    endpoint: OnceCell<QuicEndpoint>,
}

impl Deref for Subject {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Subject {
    fn key(&self) -> TaskKey {
        self.target.fixture.key
    }

    /// The content of the task and how it is divided.
    fn oracle(&self) -> Shown<(Bytes, Division)> {
        let Fixture { content, division, .. } = &self.target.fixture;
        match (content, division) {
            (Some(content), Some(division)) => Ok((content.clone(), *division)),
            _ => skip("needs the content of the task and its piece length"),
        }
    }

    /// A request for a piece of the task.
    fn ask(&self, id: u8, number: u32) -> Vec<u8> {
        self.key().piece(number).encode(id).to_vec()
    }

    /// A request for a piece of a task that nobody has.
    fn ask_unknown(&self, id: u8) -> Vec<u8> {
        let mut hash = [0; 32];
        self.runtime.fill_random(&mut hash);
        let key = TaskKey { id: TaskId::from_sha256(hash), ..self.key() };
        key.piece(0).encode(id).to_vec()
    }

    /// The kinds under which the task is not held.
    fn other_kinds(&self) -> impl Iterator<Item = PieceKind> + use<> {
        let own = self.key().kind;
        PieceKind::ALL.into_iter().filter(move |kind| *kind != own)
    }

    /// A conversation on a new connection.
    async fn talk(&self) -> Shown<Talk> {
        let lane = match self.target.transport {
            Transport::Tcp => Lane::Tcp(self.connect().await?),
            Transport::Quic => {
                let connection = self.dial(dial::Dial::default()).await?.connection;
                self.stream(&connection).await?
            }
        };
        Ok(Talk::new(self.clone(), lane))
    }

    /// A conversation on a new connection, in which `bytes` were sent; on QUIC the stream is finished after them.
    async fn say(&self, bytes: &[u8]) -> Shown<Talk> {
        let mut talk = self.talk().await?;
        talk.send(bytes).await;
        if talk.lane.transport() == Transport::Quic {
            talk.finish().await;
        }
        Ok(talk)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn every_case_is_about_a_requirement_and_has_an_id_of_its_own() {
        let mut ids = BTreeSet::new();
        for case in super::all() {
            let requirement = super::super::requirement::of_case(case.id);
            assert!(case.id.starts_with(&requirement.id) && !requirement.id.is_empty(), "{}", case.id);
            assert!(ids.insert(case.id), "{} is there twice", case.id);
        }
    }
}
