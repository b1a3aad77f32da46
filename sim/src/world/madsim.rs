//! madsim: one executor for all hosts, which runs ready tasks in random order.
//!
//! madsim's own network is not used (see `net`). Its clock is exact to the nanosecond, and idle time costs nothing.

use super::{Boot, CLOCK, Machines};
use crate::faults::lock;
use crate::host::{Clock, Machine, base};
use crate::net::HostId;
use crate::rng::Seed;
use crate::scenario::Outcome;
use madsim::runtime::{Handle, Runtime};
use madsim::task::NodeId;
use madsim::time::TimeHandle;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use vortex_p2p::runtime::{BoxFuture, Timer};

/// The executor's clock, and the node that tasks belong to.
#[derive(Clone)]
struct Node {
    time: TimeHandle,
    node: Option<madsim::runtime::NodeHandle>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Node")
    }
}

impl Clock for Node {
    fn now(&self) -> Duration {
        self.time.elapsed()
    }

    fn timer(&self, deadline: Instant) -> Pin<Box<dyn Timer>> {
        let mut sleep = Box::pin(self.time.sleep(Duration::ZERO));
        // madsim rounds a new timer up to a millisecond, but not one that is moved.
        sleep.as_mut().reset(convert(&self.time, deadline));
        Box::pin(Sleep { sleep, time: self.time.clone(), registered: None })
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        drop(match &self.node {
            Some(node) => node.spawn(task),
            None => madsim::task::spawn(task),
        });
    }
}

/// Virtual time as madsim's clock shows it.
fn convert(time: &TimeHandle, deadline: Instant) -> Instant {
    let at = deadline.saturating_duration_since(base());
    let now = time.elapsed();
    time.now_instant() + at.saturating_sub(now)
}

struct Sleep {
    sleep: Pin<Box<madsim::time::Sleep>>,
    time: TimeHandle,
    /// Each poll of madsim's timer adds one more entry to its heap, so it is polled once for each deadline and task.
    registered: Option<Waker>,
}

impl std::fmt::Debug for Sleep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sleep")
    }
}

impl Timer for Sleep {
    fn reset(mut self: Pin<&mut Self>, deadline: Instant) {
        let deadline = convert(&self.time, deadline);
        if self.sleep.deadline() != deadline {
            self.sleep.as_mut().reset(deadline);
            self.registered = None;
        }
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.registered.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()))
            && !self.sleep.is_elapsed()
        {
            return Poll::Pending;
        }
        let poll = self.sleep.as_mut().poll(cx);
        self.registered = poll.is_pending().then(|| cx.waker().clone());
        poll
    }
}

#[derive(Debug, Default)]
struct Nodes(Mutex<BTreeMap<HostId, NodeId>>);

impl Nodes {
    fn id(&self, host: HostId) -> Option<NodeId> {
        lock(&self.0).get(&host).copied()
    }
}

impl Machines for Nodes {
    fn add(&self, machine: &Arc<Machine>, boot: Boot) {
        let node = Handle::current().create_node().name(machine.name.clone()).init(move || boot()).build();
        lock(&self.0).insert(machine.id, node.id());
    }

    fn crash(&self, host: HostId) {
        if let Some(id) = self.id(host) {
            Handle::current().kill(id);
        }
    }

    fn restart(&self, host: HostId) {
        if let Some(id) = self.id(host) {
            Handle::current().restart(id);
        }
    }
}

pub(super) fn run<F>(
    seed: Seed,
    start: impl FnOnce(Arc<dyn Machines>, Arc<dyn Clock>) -> F,
) -> (Outcome, Duration)
where
    F: Future<Output = (Outcome, Duration)>,
{
    CLOCK.set(Some(|| {
        let node = Handle::current().get_node(madsim::plugin::node());
        Arc::new(Node { time: TimeHandle::current(), node })
    }));
    let runtime = Runtime::with_seed_and_config(seed.stream("madsim").bits(), madsim::Config::default());
    runtime.block_on(async {
        let clock = Node { time: TimeHandle::current(), node: None };
        start(Arc::new(Nodes::default()), Arc::new(clock)).await
    })
}
