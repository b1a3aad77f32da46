//! Running, draining, aborted.

use crate::runtime::SharedRuntime;
use crate::watch;
use std::future::Future;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

/// How far a shutdown is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    Running,
    /// Nothing new; what is under way is finished.
    Draining,
    /// What is under way is broken off.
    Aborted,
}

/// The state of the shutdown, and the tasks that it waits for.
#[derive(Debug)]
pub(super) struct Lifecycle {
    phase: watch::Sender<Phase>,
    tasks: TaskTracker,
}

impl Lifecycle {
    pub(super) fn new() -> Self {
        let tasks = TaskTracker::new();
        tasks.close();
        Self { phase: watch::Sender::new(Phase::Running), tasks }
    }

    /// Runs `task`; a shutdown waits for it. What logs tell of it belongs to whatever started it.
    pub(super) fn spawn(&self, runtime: &SharedRuntime, task: impl Future<Output = ()> + Send + 'static) {
        runtime.spawn(Box::pin(self.tasks.track_future(task.in_current_span())));
    }

    pub(super) fn drain(&self) {
        self.phase.modify(|phase| *phase = (*phase).max(Phase::Draining));
    }

    pub(super) fn abort(&self) {
        self.phase.send(Phase::Aborted);
    }

    /// Waits until `phase` is reached.
    pub(super) async fn reached(&self, phase: Phase) {
        // The sender lives as long as `self`, so waiting can't fail.
        let _ = self.phase.subscribe().wait_for(|now| *now >= phase).await;
    }

    /// Waits until every task has ended.
    pub(super) async fn ended(&self) {
        self.tasks.wait().await;
    }
}
