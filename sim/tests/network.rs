//! What the simulated hosts and network promise to scenarios.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests, which clippy does not take for tests"
)]

mod plan;

use plan::{finished, passes};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use vortex_sim::host::Host;
use vortex_sim::net::{Conditions, HostId, Loss};
use vortex_sim::scenario::Outcome;
use vortex_sim::trace::Fate;
use vortex_sim::world::Sim;

fn fails<R>(plan: impl Fn(Sim) -> R + Send + Sync + 'static) -> String
where
    R: Future<Output = Outcome> + Send + 'static,
{
    finished(1, plan).outcome.expect_err("the plan passed").to_string()
}

fn tcp(host: HostId) -> SocketAddr {
    SocketAddr::new(host.ipv4().into(), 80)
}

/// Sends back whatever comes, half a connection at a time.
async fn echo(host: Host) -> Outcome {
    let mut listener = host.network().listen("0.0.0.0:80".parse()?).await?;
    loop {
        let (mut stream, _) = listener.accept().await?;
        host.runtime().spawn(Box::pin(async move {
            let mut bytes = Vec::new();
            if stream.read_to_end(&mut bytes).await.is_ok() {
                let _ = stream.write_all(&bytes).await;
                let _ = stream.shutdown().await;
            }
        }));
    }
}

async fn exchange(host: &Host, to: SocketAddr, length: usize) -> io::Result<()> {
    let mut stream = host.network().connect(to).await?;
    let sent: Vec<u8> = (0..length).map(|at| (at / 3) as u8).collect();
    stream.write_all(&sent).await?;
    stream.shutdown().await?;
    let mut received = Vec::new();
    stream.read_to_end(&mut received).await?;
    assert!(sent == received);
    Ok(())
}

#[test]
fn tcp_carries_every_byte_over_a_path_that_does_everything() {
    static RETRANSMISSIONS: AtomicU64 = AtomicU64::new(0);
    for seed in 0..5 {
        let done = passes(seed, |sim| async move {
            sim.net().set_default(Conditions {
                loss: Loss::Independent(0.03),
                duplicate: 0.03,
                corrupt: 0.03,
                reorder: 0.03,
                ..Conditions::default()
            });
            let server = tcp(sim.host("server", echo).id());
            let clients = ["a", "b", "c"].map(|name| {
                sim.client(name, move |host| async move {
                    host.runtime().sleep(Duration::from_millis(2)).await;
                    exchange(&host, server, 100_000).await
                })
            });
            for client in clients {
                client.result().await.ok_or("no result")??;
            }
            RETRANSMISSIONS.fetch_add(sim.net().tcp_retransmissions(), Ordering::Relaxed);
            Ok(())
        });
        let fates = |fate| done.trace.events().iter().filter(|event| event.fate == fate).count();
        assert!([Fate::Lost, Fate::Duplicated, Fate::Corrupted].iter().all(|fate| fates(*fate) > 5));
    }
    assert!(RETRANSMISSIONS.load(Ordering::Relaxed) > 50);
}

#[test]
fn a_port_where_nobody_listens_refuses() {
    passes(1, |sim| async move {
        let server = tcp(sim.host("server", |_| async { Ok(()) }).id());
        let client = sim.client("client", move |host| async move {
            host.runtime().sleep(Duration::from_millis(2)).await;
            host.network().connect(server).await.map(drop)
        });
        let error = client.result().await.ok_or("no result")?.expect_err("connected");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert!(sim.now() < Duration::from_secs(1));
        Ok(())
    });
}

#[test]
fn a_host_that_lost_power_is_silent_and_resets_what_it_forgot_once_it_is_back() {
    passes(1, |sim| async move {
        let server = sim.host("server", echo);
        let to = tcp(server.id());
        let client = sim.client("client", move |host| async move {
            host.runtime().sleep(Duration::from_millis(2)).await;
            let mut stream = host.network().connect(to).await?;
            host.runtime().sleep(Duration::from_secs(2)).await;
            stream.write_all(b"anyone there?").await?;
            let mut byte = [0];
            let error = stream.read(&mut byte).await.expect_err("an answer from a connection that is gone");
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
            // The host is back, with its software.
            exchange(&host, to, 1_000).await?;
            Ok::<_, io::Error>(host.runtime().now())
        });
        sim.sleep(Duration::from_secs(1)).await;
        server.crash();
        sim.sleep(Duration::from_secs(4)).await;
        server.restart();
        client.result().await.ok_or("no result")??;
        assert!(sim.now() > Duration::from_secs(5), "the client heard from a host without power");
        Ok(())
    });
}

#[test]
fn a_paused_host_does_nothing_and_then_goes_on() {
    passes(1, |sim| async move {
        let server = sim.host("server", echo);
        let to = tcp(server.id());
        sim.sleep(Duration::from_millis(10)).await;
        let client = sim.client("client", move |host| async move { exchange(&host, to, 1_000).await });
        server.pause();
        sim.sleep(Duration::from_secs(7)).await;
        server.resume();
        client.result().await.ok_or("no result")??;
        assert!(sim.now() >= Duration::from_secs(7));
        Ok(())
    });
}

#[test]
fn a_cut_path_delivers_nothing_and_a_nat_that_forgets_breaks_tcp() {
    let done = passes(1, |sim| async move {
        let server = sim.host("server", echo);
        let to = tcp(server.id());
        let client = sim.client("client", move |host| async move {
            host.runtime().sleep(Duration::from_millis(2)).await;
            let mut stream = host.network().connect(to).await?;
            host.runtime().sleep(Duration::from_secs(1)).await;
            stream.write_all(b"from elsewhere").await?;
            let mut byte = [0];
            Ok::<_, io::Error>(stream.read(&mut byte).await.map(|_| ()))
        });
        sim.sleep(Duration::from_millis(500)).await;
        sim.net().cut(client.host().id(), server.id());
        sim.sleep(Duration::from_secs(3)).await;
        sim.heal(client.host(), &server);
        sim.net().rebind(client.host().id(), true);
        let read = client.result().await.ok_or("no result")??;
        assert!(read.is_err(), "the peer can't know this address");
        Ok(())
    });
    let during = done.trace.events().iter().filter(|e| (500_000_000..3_500_000_000).contains(&e.at));
    let fates: Vec<Fate> = during.map(|event| event.fate).collect();
    assert!(fates.contains(&Fate::Cut) && !fates.contains(&Fate::Delivered), "{fates:?}");
    assert!(done.trace.events().iter().any(|event| event.source.ip().to_string().starts_with("100.64.")));
}

#[test]
fn panics_failures_and_endless_waits_end_the_run_with_a_reason() {
    let panic = fails(|sim| async move {
        sim.host("server", |host| async move {
            host.runtime().spawn(Box::pin(async { panic!("in a spawned task") }));
            Ok(())
        });
        std::future::pending().await
    });
    assert!(panic.contains("in a spawned task") && panic.contains("server"), "{panic}");
    assert!(panic.contains("network.rs:"), "{panic}");
    let failure = fails(|sim| async move {
        sim.host("server", |_| async { Err("no disk".into()) });
        std::future::pending().await
    });
    assert!(failure.contains("no disk"), "{failure}");
    let blocking = fails(|sim| async move {
        sim.host("server", |host| async move {
            host.runtime().spawn_blocking(Box::new(|| panic!("in a job")));
            Ok(())
        });
        std::future::pending().await
    });
    assert!(blocking.contains("in a job"), "{blocking}");
    assert!(fails(|_| std::future::pending()).contains("not finished after 120s"));
}
