//! Plays servers, good and evil, for a client.
//!
//! Each case is a server of its own, with a task of its own. A [`Driver`] has the client fetch that task and says how it
//! went; the case judges that, and what the client did on the wire.

mod accepts;
mod ends;
mod rejects;
mod seen;
mod speak;
mod speaks;
mod stage;

use super::case::{On, Shown, Stop};
use super::run::{Planned, run};
use super::{CaseReport, Draft, RunSettings, Transport, Waits};
use crate::runtime::{BoxFuture, SharedRuntime};
use crate::session::Deadlines;
use crate::store::TaskKey;
use crate::transport::Network;
use crate::wire::Division;
use bytes::Bytes;
use seen::Seen;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

/// What a client is to do in a case.
#[derive(Debug, Clone)]
pub struct Job {
    /// The case.
    pub case: &'static str,
    /// What is expected of the client, in words.
    pub about: &'static str,
    /// The transport of the peers.
    pub transport: Transport,
    /// The peers that have the task, of which the client may ask any.
    pub peers: Vec<SocketAddr>,
    /// The task.
    pub key: TaskKey,
    /// Its length and that of its pieces.
    pub division: Division,
}

/// How a client fared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It says that it has the task, and this is what it has.
    Done(Bytes),
    /// It says that it does not have the task, and why.
    Failed(String),
    /// It could not be had to do what the case needs.
    Unable(String),
    /// Nobody says: only the wire does.
    Unknown,
}

/// Has the client under test do something.
pub trait Driver: Send + Sync {
    /// Has it fetch a task.
    fn fetch(&self, job: Job) -> BoxFuture<'static, Outcome>;
}

/// The client under test, and where servers are played for it.
#[derive(Clone)]
pub struct Target {
    /// The transport that it is spoken to over.
    pub transport: Transport,
    /// Where to listen. With port 0 each server takes a free one; otherwise they take this one and those that follow.
    pub listen: SocketAddr,
    /// Its deadlines, where they differ from the defaults.
    pub deadlines: Deadlines,
    /// How patient to be.
    pub waits: Waits,
    /// Who has it fetch tasks.
    pub driver: Arc<dyn Driver>,
}

/// A case of the client mode, as a list shows it.
pub use super::server::Listed;

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

/// Runs the cases for the client of `target`, over its transport.
pub async fn check(
    runtime: SharedRuntime,
    network: Arc<dyn Network>,
    target: Target,
    settings: &RunSettings,
) -> Vec<CaseReport> {
    let transport = target.transport;
    let ports = AtomicU16::new(target.listen.port());
    let world = World(Arc::new(Inner { runtime: runtime.clone(), network, target, ports }));
    let Target { deadlines, waits, .. } = &world.0.target;
    let plan = all().filter(|case| case.on.includes(transport)).map(|case| {
        let waited = match case.waits {
            For::Nothing => Duration::ZERO,
            For::FirstByte => deadlines.first_byte,
            For::Connect => deadlines.connect,
        };
        Planned {
            id: case.id,
            transport,
            about: case.about,
            deadline: waited + waits.soon * 4 + waits.quiet * 4,
            slow: case.waits != For::Nothing,
            run: Box::pin(play(world.clone(), case, waited)),
        }
    });
    let plan = plan.collect();
    run(&runtime, settings, plan).await
}

/// A case: how the server answers, and what is made of what the client did.
struct Case {
    id: &'static str,
    on: On,
    waits: For,
    about: &'static str,
    /// Pieces of the task.
    pieces: u32,
    /// Servers. The first one answers as the case says, the others as they should.
    servers: usize,
    reply: fn(Asked) -> Reply,
    judge: fn(&Seen) -> Shown,
}

/// What a case waits for beside answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum For {
    Nothing,
    FirstByte,
    Connect,
}

/// A request, as whoever answers it sees it.
struct Asked {
    /// The piece number.
    number: u32,
    /// How many requests for this piece came before, on whichever connection.
    before: usize,
    /// How many requests came before on this connection.
    on_connection: usize,
    /// The answer that is right.
    right: Draft,
    waits: Waits,
}

/// What is done on the lane of a request.
#[derive(Debug, Clone)]
enum Step {
    Send(Vec<u8>),
    /// The same, a few bytes at a time.
    Trickle(Vec<u8>, usize),
    Pause(Duration),
    /// Nothing more: the stream is finished on QUIC; on TCP the next request is awaited.
    Done,
    /// The direction is finished, on TCP that of the connection.
    Fin,
    /// RESET_STREAM on QUIC; on TCP the connection is dropped.
    Reset(u32),
    /// The connection is closed with this code; on TCP it is dropped.
    CloseConnection(u32),
    /// Nothing, whatever is waited for.
    Hold,
}

type Reply = Vec<Step>;

/// Answers with `bytes` and nothing else.
fn say(bytes: Vec<u8>) -> Reply {
    vec![Step::Send(bytes), Step::Done]
}

/// The right answer.
fn right(asked: Asked) -> Reply {
    say(asked.right.encode())
}

/// A table of cases: id, transports, what is waited for, pieces, what is expected, how is answered, how it is judged.
macro_rules! cases {
    ($($id:literal $on:ident $waits:ident $pieces:literal/$servers:literal $about:literal
        => $reply:expr, $judge:expr;)*) => {
        pub(super) const CASES: &[$crate::conformance::client::Case] = &[$(
            $crate::conformance::client::Case {
                id: $id,
                on: $crate::conformance::case::On::$on,
                waits: $crate::conformance::client::For::$waits,
                about: $about,
                pieces: $pieces,
                servers: $servers,
                reply: $reply,
                judge: $judge,
            },
        )*];
    };
}
use cases;

fn all() -> impl Iterator<Item = &'static Case> {
    [speaks::CASES, accepts::CASES, rejects::CASES, ends::CASES].into_iter().flatten()
}

#[derive(Clone)]
struct World(Arc<Inner>);

struct Inner {
    runtime: SharedRuntime,
    network: Arc<dyn Network>,
    target: Target,
    /// The next port, where ports are given.
    ports: AtomicU16,
}

impl Inner {
    fn address(&self) -> SocketAddr {
        let mut address = self.target.listen;
        if address.port() != 0 {
            address.set_port(self.ports.fetch_add(1, Ordering::Relaxed));
        }
        address
    }
}

/// Bytes of a piece of the tasks that are played with.
const PIECE: u32 = 4096;

async fn play(world: World, case: &'static Case, waited: Duration) -> Shown {
    let stage = stage::Stage::new(&world, case)?;
    let first = stage.open(case.reply).await?;
    let mut honest = Vec::new();
    for _ in 1..case.servers {
        honest.push(stage.open(right).await?);
    }
    let job = Job {
        case: case.id,
        about: case.about,
        transport: world.0.target.transport,
        peers: std::iter::once(&first).chain(&honest).map(|server| server.address).collect(),
        key: stage.key,
        division: stage.division,
    };
    let Inner { runtime, target, .. } = &*world.0;
    let servers = std::iter::once(first).chain(honest).map(|server| server.serve);
    let serving = futures_util::future::join_all(servers);
    let within = match case.waits {
        For::Nothing => target.waits.soon * 3,
        For::FirstByte | For::Connect => waited + target.waits.soon,
    };
    let driven = runtime.timeout(within, target.driver.fetch(job));
    let (outcome, serving) = match futures_util::future::select(Box::pin(driven), serving).await {
        futures_util::future::Either::Left((outcome, serving)) => (outcome, serving),
        futures_util::future::Either::Right(_) => return Err(Stop::Skip("the server has ended".to_owned())),
    };
    let outcome = match outcome {
        Ok(Outcome::Unable(why)) => return Err(Stop::Skip(why)),
        Ok(outcome) => {
            // What the client says last is still on its way.
            let _ = runtime.timeout(target.waits.quiet, serving).await;
            outcome
        }
        // It was ended by force, and what it says by that is not its own.
        Err(_) => Outcome::Failed(format!("the client did not end within {within:?}")),
    };
    let seen = stage.seen(outcome);
    seen.may_be_judged(case.id)?;
    (case.judge)(&seen)
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
