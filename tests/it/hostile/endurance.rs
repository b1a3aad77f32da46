//! Many clients, for long: every byte right, and nothing that grows.

use super::clients::{client, dialer, fetch};
use super::victim::{Held, Victim};
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::RwLock;
use vortex_p2p::downloader::{Dialer, Protocol};

const CLIENTS: u64 = 200;
const PIECE: usize = 1 << 20;

#[derive(Debug, Default)]
struct Counts {
    pieces: AtomicU64,
    bytes: AtomicU64,
    aborted: AtomicU64,
    sessions: AtomicU64,
    /// By what the innermost error says.
    failed: Mutex<BTreeMap<String, u64>>,
}

impl Counts {
    fn fail(&self, why: impl Into<String>) {
        *self.failed.lock().unwrap().entry(why.into()).or_default() += 1;
    }
}

fn innermost(error: &dyn Error) -> String {
    error.source().map_or_else(|| error.to_string(), innermost)
}

/// Drawn numbers, the same ones for each client in every run (splitmix64).
struct Drawn(u64);

impl Drawn {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % limit
    }
}

/// One client after another: it connects, takes some pieces, gives some of them up, goes away for a while.
async fn visit(
    dialer: Dialer,
    victim: Arc<RwLock<Victim>>,
    counts: Arc<Counts>,
    stop: Arc<AtomicBool>,
    (seed, pause): (u64, u64),
) {
    let mut drawn = Drawn(seed);
    while !stop.load(Ordering::Relaxed) {
        let client = client(&dialer);
        counts.sessions.fetch_add(1, Ordering::Relaxed);
        for _ in 0..=drawn.below(8) {
            let protocol = Protocol::ALL[drawn.below(3) as usize];
            let (peer, key, number, expected) = {
                let victim = victim.read().await;
                let task = drawn.below(victim.tasks.len() as u64) as usize;
                let pieces = victim.contents[task].len().div_ceil(PIECE) as u64;
                let number = drawn.below(pieces) as u32;
                (victim.peer(protocol), victim.tasks[task], number, victim.piece(task, number).to_vec())
            };
            let abort = (drawn.below(8) == 0).then(|| drawn.below(expected.len() as u64 + 1) as usize);
            let asked = fetch(&client, peer, (key, number), &expected, abort);
            let asked = tokio::time::timeout(Duration::from_secs(60), asked).await;
            match asked {
                Ok(Ok(bytes)) => {
                    counts.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
                    let counter = if abort.is_some() { &counts.aborted } else { &counts.pieces };
                    counter.fetch_add(1, Ordering::Relaxed);
                }
                // Refused at a limit, or the server was restarted.
                Ok(Err(error)) => counts.fail(innermost(&error)),
                Err(_) => counts.fail("not a byte, or not all of them, in 60 s"),
            }
        }
        drop(client);
        tokio::time::sleep(Duration::from_millis(drawn.below(pause))).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "as long as VORTEX_ENDURANCE says, in seconds; VORTEX_ENDURANCE_PAUSE: the longest pause of a client, in ms"]
async fn nothing_grows() {
    let setting = |name, or: u64| std::env::var(name).map_or(or, |value| value.parse().unwrap());
    let seconds = setting("VORTEX_ENDURANCE", 60);
    let pause = setting("VORTEX_ENDURANCE_PAUSE", 4000);
    let victim = Arc::new(RwLock::new(Victim::new(PIECE)));
    let (counts, stop) = (Arc::new(Counts::default()), Arc::new(AtomicBool::new(false)));
    let mut clients = Vec::new();
    for seed in 0..CLIENTS {
        // Ten clients share an address and a socket, as processes of one machine do.
        let dialer = dialer(Ipv4Addr::new(127, 0, 1, (seed / 10) as u8 + 1)).await;
        clients.push(tokio::spawn(visit(
            dialer,
            victim.clone(),
            counts.clone(),
            stop.clone(),
            (seed, pause),
        )));
    }
    let begun = Instant::now();
    let mut samples = Vec::new();
    while begun.elapsed().as_secs() < seconds {
        tokio::time::sleep(Duration::from_secs((seconds / 240).max(1))).await;
        samples.push((begun.elapsed().as_secs(), victim.read().await.held()));
    }
    let served = counts.pieces.load(Ordering::Relaxed);
    // Restarted under load, at other ports; the clients find it there and carry on.
    {
        let mut victim = victim.write().await;
        tokio::task::block_in_place(|| victim.restart());
    }
    let after = Instant::now();
    let carried_on = || counts.pieces.load(Ordering::Relaxed) >= served + CLIENTS;
    while !carried_on() {
        assert!(after.elapsed() < Duration::from_secs(120), "the clients do not carry on after a restart");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    println!("{} s, {CLIENTS} clients: {counts:?}", begun.elapsed().as_secs());
    let directory = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    std::fs::write(directory.join("endurance.svg"), picture(&samples)).unwrap();
    println!("the curves are in {}", directory.join("endurance.svg").display());

    // Nothing grows: the last third of the time holds no more than the one before, but for a little.
    let third = samples.len() / 3;
    let most = |from: usize, of: &dyn Fn(&Held) -> u64| {
        samples[from..from + third].iter().map(|(_, held)| of(held)).max().unwrap()
    };
    type Reading<'a> = (&'a str, &'a dyn Fn(&Held) -> u64, u64);
    let readings: [Reading<'_>; 4] = [
        ("bytes of memory", &|held| held.resident, 16 << 20),
        ("descriptors", &|held| held.descriptors as u64, 100),
        ("threads", &|held| held.threads, 20),
        ("bytes of disk", &|held| held.disk, 1 << 20),
    ];
    for (name, of, slack) in readings {
        let (before, last) = (most(third, of), most(2 * third, of));
        println!("{name}: at most {before}, then {last}");
        assert!(last <= before + slack, "{name}: {before}, then {last}");
    }
}

/// The curves, one below the other, each from zero to its largest value.
fn picture(samples: &[(u64, Held)]) -> String {
    const WIDTH: f64 = 720.0;
    const HEIGHT: f64 = 90.0;
    const STEP: f64 = 130.0;
    type Curve<'a> = (&'a str, &'a dyn Fn(&Held) -> f64);
    let mib = f64::from(1 << 20);
    let curves: [Curve<'_>; 4] = [
        ("memory, MiB", &|held| held.resident as f64 / mib),
        ("file descriptors", &|held| held.descriptors as f64),
        ("threads", &|held| held.threads as f64),
        ("store on disk, MiB", &|held| held.disk as f64 / mib),
    ];
    let end = samples.last().map_or(1, |(at, _)| *at).max(1) as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 800 {:.0}\" font-family=\"sans-serif\" font-size=\"13\">\n",
        STEP * curves.len() as f64 + 20.0
    );
    for (row, (name, of)) in curves.iter().enumerate() {
        let top = row as f64 * STEP + 30.0;
        let most = samples.iter().map(|(_, held)| of(held)).fold(1.0, f64::max);
        let points: Vec<_> = samples
            .iter()
            .map(|(at, held)| {
                let (x, y) = (*at as f64 / end * WIDTH, HEIGHT - of(held) / most * HEIGHT);
                format!("{:.1},{:.1}", 40.0 + x, top + y)
            })
            .collect();
        let bottom = top + HEIGHT;
        let _ = writeln!(
            svg,
            "<text x=\"40\" y=\"{:.0}\" fill=\"#555\">{name}: at most {most:.0}</text>",
            top - 8.0
        );
        let _ = writeln!(
            svg,
            "<path d=\"M40 {top}V{bottom}H{:.0}\" fill=\"none\" stroke=\"#999\"/>\n\
             <polyline points=\"{}\" fill=\"none\" stroke=\"#2a6fbb\" stroke-width=\"1.5\"/>",
            40.0 + WIDTH,
            points.join(" ")
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"40\" y=\"{:.0}\" fill=\"#555\">{end:.0} s</text>\n</svg>",
        STEP * 4.0 + 15.0
    );
    svg
}
