//! Failing runs are made smaller, and the runs that failed once are run again.

use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use vortex_p2p::runtime::BoxFuture;
use vortex_sim::faults::Fault;
use vortex_sim::host::Host;
use vortex_sim::mask::{Mask, Numbers};
use vortex_sim::net::{Bandwidth, Conditions};
use vortex_sim::regression::Regression;
use vortex_sim::scenario::{Outcome, Scenario};
use vortex_sim::shrink::{Shrunk, shrink};
use vortex_sim::trace::Keep;
use vortex_sim::world::{Finished, Sim, World, run, run_masked};

/// Bytes over TCP on a bad path that is held twice. Wrong is whatever `violation` says of the packets that were changed and
/// of the times that the path was held.
struct Plan {
    violation: fn(changed: u64, held: u64) -> Option<String>,
}

impl Scenario for Plan {
    fn name(&self) -> &'static str {
        "plan"
    }
    fn about(&self) -> &'static str {
        "a test"
    }
    fn run(&self, sim: Sim) -> BoxFuture<'static, Outcome> {
        Box::pin(bytes_over_tcp(sim, self.violation))
    }
}

async fn sink(host: Host) -> Outcome {
    let mut listener = host.network().listen("0.0.0.0:80".parse()?).await?;
    loop {
        let (mut stream, _) = listener.accept().await?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await?;
        stream.write_all(&bytes.len().to_be_bytes()).await?;
        stream.shutdown().await?;
    }
}

async fn bytes_over_tcp(sim: Sim, violation: fn(u64, u64) -> Option<String>) -> Outcome {
    let path = Conditions { corrupt: 0.05, duplicate: 0.05, reorder: 0.1, ..Conditions::default() };
    let narrow = Bandwidth::mbit(8, Duration::from_millis(20));
    sim.net().set_default(path.with_loss(0.03).with_bandwidth(narrow));
    let server = sim.host("server", sink);
    let to = (server.id().ipv4(), 80).into();
    let client = sim.client("client", move |host| async move {
        let mut stream = host.network().connect(to).await?;
        stream.write_all(&[7; 200_000]).await?;
        stream.shutdown().await?;
        let mut length = Vec::new();
        stream.read_to_end(&mut length).await?;
        Ok::<_, std::io::Error>(length)
    });
    for _ in 0..2 {
        sim.sleep(Duration::from_millis(150)).await;
        sim.net().hold(client.host().id(), server.id());
        sim.sleep(Duration::from_millis(100)).await;
        sim.heal(client.host(), &server);
    }
    let length = client.result().await.ok_or("the client is gone")??;
    assert_eq!(length, 200_000u64.to_be_bytes());
    let report = sim.ledger().report();
    let tally = |fault| report.faults.get(&fault).copied().unwrap_or_default();
    violation(tally(Fault::Corrupt).fired, tally(Fault::Hold).armed).map_or(Ok(()), |what| Err(what.into()))
}

fn run_with(plan: &'static Plan, seed: u64, mask: Mask) -> Finished {
    run_masked(World::Turmoil, plan, seed, Keep::Digest, mask)
}

fn shrunk(plan: &'static Plan) -> Option<Shrunk> {
    shrink(|mask| run_with(plan, 5, mask.clone()), 500)
}

#[test]
fn what_is_left_is_enough_and_nothing_of_it_can_go() {
    static PLAN: Plan = Plan {
        violation: |changed, held| {
            (changed >= 2 && held >= 1).then(|| format!("{changed} packets were changed, and the path held"))
        },
    };
    let shrunk = shrunk(&PLAN).expect("it fails");
    assert!(shrunk.before > 30, "{shrunk:?}");
    assert_eq!(shrunk.after, Some(3), "two changed packets, and one time that the path was held: {shrunk:?}");
    // The same again from what a file keeps of it.
    let file = serde_json::to_string(&shrunk.mask).unwrap();
    let again = run_with(&PLAN, 5, serde_json::from_str(&file).unwrap());
    assert_eq!(again.outcome.unwrap_err().to_string(), shrunk.violation);
    let changed = again.report.faults[&Fault::Corrupt].fired;
    assert_eq!((changed, again.report.faults[&Fault::Hold].armed), (2, 1));
    assert_eq!([Fault::Loss, Fault::Duplicate].map(|fault| again.report.faults[&fault].fired), [0, 0]);
}

#[test]
fn what_fails_without_faults_is_left_without_any() {
    static PLAN: Plan = Plan { violation: |_, _| Some("always".to_owned()) };
    let shrunk = shrunk(&PLAN).expect("it fails");
    assert_eq!((shrunk.after, shrunk.runs), (Some(0), 2));
    static RIGHT: Plan = Plan { violation: |_, _| None };
    assert!(shrink(|mask| run_with(&RIGHT, 5, mask.clone()), 500).is_none());
}

#[test]
fn a_mask_that_spares_nothing_changes_nothing() {
    static PLAN: Plan = Plan { violation: |_, _| None };
    let whole = run(World::Turmoil, &PLAN, 9, Keep::Digest);
    let every = Fault::ALL.into_iter().map(|fault| (fault, Numbers::all())).collect();
    assert_eq!(run_with(&PLAN, 9, Mask::only(every)).digest(), whole.digest());
    let without = run_with(&PLAN, 9, Mask::only([(Fault::Hold, Numbers::these(&[1]))].into()));
    assert_ne!(without.digest(), whole.digest());
    assert_eq!(without.report.faults[&Fault::Hold].armed, 1);
}

/// Those of worlds that this build has; the step `simulate` of CI has both.
#[test]
fn runs_that_failed_once_end_as_their_files_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions");
    let mut files = 0;
    for entry in folder.read_dir().unwrap() {
        let path = entry.unwrap().path();
        let regression = Regression::read(&path).unwrap();
        assert!(regression.mended.is_some(), "{} is not mended", path.display());
        files += 1;
        if World::ALL.contains(&regression.world) {
            let finished = regression.run(Keep::Digest).unwrap();
            assert!(regression.is_right(&finished.outcome), "{}: {:?}", path.display(), finished.outcome);
        }
    }
    assert!(files >= 4, "{files}");
}
