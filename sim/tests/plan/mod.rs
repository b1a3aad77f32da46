//! Scenarios that are a function, for tests.

use std::future::Future;
use vortex_p2p::runtime::BoxFuture;
use vortex_sim::scenario::{Outcome, Scenario};
use vortex_sim::trace::Keep;
use vortex_sim::world::{Finished, Sim, World, run};

/// A scenario made of a function.
struct Plan<F>(F);

impl<F, R> Scenario for Plan<F>
where
    F: Fn(Sim) -> R + Send + Sync,
    R: Future<Output = Outcome> + Send + 'static,
{
    fn name(&self) -> &'static str {
        "plan"
    }
    fn about(&self) -> &'static str {
        "a test"
    }
    fn run(&self, sim: Sim) -> BoxFuture<'static, Outcome> {
        Box::pin((self.0)(sim))
    }
}

/// Runs `plan` as a scenario.
pub(super) fn finished<R>(seed: u64, plan: impl Fn(Sim) -> R + Send + Sync + 'static) -> Finished
where
    R: Future<Output = Outcome> + Send + 'static,
{
    run(World::Turmoil, Box::leak(Box::new(Plan(plan))), seed, Keep::Events)
}

/// Runs `plan`, which has to pass.
pub(super) fn passes<R>(seed: u64, plan: impl Fn(Sim) -> R + Send + Sync + 'static) -> Finished
where
    R: Future<Output = Outcome> + Send + 'static,
{
    let finished = finished(seed, plan);
    if let Err(violation) = &finished.outcome {
        panic!("seed {seed}: {violation}");
    }
    finished
}
