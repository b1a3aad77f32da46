//! The command: what scripts rely on.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

pub(crate) fn vortex() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vortex"));
    command.env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

pub(crate) fn run(arguments: &[&str]) -> Output {
    vortex().args(arguments).output().unwrap()
}

/// The last line of stdout, which is one JSON object.
pub(crate) fn last_object(output: &Output) -> serde_json::Value {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let last = text.lines().last().unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    serde_json::from_str(last).unwrap()
}

/// What a server listens for.
pub(crate) const PROTOCOLS: &[&str] =
    if cfg!(feature = "grpc") { &["quic", "tcp", "grpc"] } else { &["quic", "tcp"] };

/// `vortex serve`, ended when dropped.
pub(crate) struct Serving {
    child: Child,
    pub(crate) ready: serde_json::Value,
}

impl Serving {
    pub(crate) fn new(arguments: &[&str]) -> Self {
        let mut command = vortex();
        command
            .arg("serve")
            .args(PROTOCOLS.iter().flat_map(|protocol| [format!("--{protocol}"), "127.0.0.1:0".to_owned()]))
            .args(arguments)
            .stderr(Stdio::null());
        Self::start(command)
    }

    /// Starts `command`, and waits until it is ready.
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready = line.strip_prefix("READY ").unwrap_or_else(|| panic!("{line}"));
        Self { child, ready: serde_json::from_str(ready).unwrap() }
    }

    pub(crate) fn text(&self, key: &str) -> &str {
        self.ready[key].as_str().unwrap()
    }

    /// The ids of the tasks that it serves, those of the named files first.
    pub(crate) fn tasks(&self) -> impl Iterator<Item = &str> {
        self.ready["tasks"].as_array().unwrap().iter().map(|task| task["task"].as_str().unwrap())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to stop, and waits until it has.
    #[cfg(target_os = "linux")]
    pub(crate) fn terminate(&mut self) -> std::process::ExitStatus {
        let pid = nix::unistd::Pid::from_raw(self.child.id().try_into().unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        self.child.wait().unwrap()
    }

    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    }

    /// What it logs, where that was piped.
    pub(crate) fn stderr(&mut self) -> std::process::ChildStderr {
        self.child.stderr.take().unwrap()
    }

    /// Waits for its end.
    pub(crate) fn ended(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    pub(crate) fn peer(&self, protocol: &str) -> String {
        format!("{protocol}://{}", self.text(protocol))
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn file(directory: &Path, name: &str, length: usize) -> String {
    let path = directory.join(name);
    std::fs::write(&path, (0..length).map(|at| (at * 7 + at / 253) as u8).collect::<Vec<_>>()).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_file_goes_from_import_over_serve_to_get() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    for (length, kind) in [(0, "piece"), (1, "persistent"), (65_536, "persistent-cache"), (65_537, "cache")] {
        let source = file(directory.path(), "source", length);
        let (store, manifest, out) = (path("store"), path("task.json"), path("out"));
        let imported = run(&[
            "import",
            &source,
            "--dir",
            &store,
            "--kind",
            kind,
            "--piece-length",
            "64KiB",
            "--manifest",
            &manifest,
            "--json",
        ]);
        let imported = last_object(&imported);
        assert_eq!((&imported["kind"], &imported["length"]), (&kind.into(), &length.into()));
        let task = imported["task"].as_str().unwrap();

        let pinned = Serving::new(&["--dir", &store]);
        let ticket = pinned.ready["tasks"].as_array().unwrap().iter().find(|it| it["task"] == task).unwrap();
        let ticket = ticket["ticket"].as_str().unwrap().to_owned();
        for protocol in PROTOCOLS.iter().copied().chain(["auto"]) {
            let got = run(&["get", &ticket, "-o", &out, "--protocol", protocol, "--json"]);
            let done = last_object(&got);
            assert_eq!((&done["event"], &done["bytes"]), (&"done".into(), &length.into()), "{done}");
            // The id of an imported task is the digest of its file.
            assert_eq!(done["sha256"], task);
            assert_eq!(std::fs::read(&out).unwrap(), std::fs::read(&source).unwrap());
        }
        drop(pinned);

        let insecure = Serving::new(&["--dir", &store, "--insecure"]);
        for protocol in PROTOCOLS {
            for what in [task, &manifest] {
                let peer = insecure.peer(protocol);
                let got = run(&["get", what, "--peer", &peer, "--kind", kind, "-o", &out, "--insecure"]);
                assert_eq!(got.status.code(), Some(0), "{}", String::from_utf8_lossy(&got.stderr));
                assert_eq!(std::fs::read(&out).unwrap(), std::fs::read(&source).unwrap());
            }
        }
        drop(insecure);
        let left = std::fs::read_dir(directory.path()).unwrap().map(|it| it.unwrap().file_name());
        let left: Vec<_> = left.filter(|name| name.to_str().unwrap().starts_with('.')).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn exit_codes_say_what_went_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let source = file(directory.path(), "source", 1000);
    let (store, out) = (path("store"), path("out"));
    let serving = Serving::new(&[&source, "--dir", &store, "--insecure"]);
    let pinned_store = path("pinned");
    let pinned = Serving::new(&[&source, "--dir", &pinned_store]);
    let (peer, task, nobodys) = (serving.peer("quic"), serving.text("task"), "0".repeat(64));
    // The right server, and the fingerprint of another.
    let wrong = {
        let other = path("other");
        let other = Serving::new(&[&source, "--dir", &other]);
        let pin = other.text("ticket").split('/').nth(3).unwrap().to_owned();
        let mut parts: Vec<_> = pinned.text("ticket").split('/').map(str::to_owned).collect();
        parts[3] = pin;
        parts.join("/")
    };
    let zeros = format!("sha256:{}", "0".repeat(64));
    let (missing, fresh) = (path("missing"), path("fresh"));
    for (code, name, arguments) in [
        (2, "usage", vec!["get", "not-a-task", "-o", &out, "--json"]),
        (2, "usage", vec!["get", task, "-o", &out, "--json"]),
        (2, "usage", vec!["get", task, "--peer", &peer, "-o", &out, "--json"]),
        (3, "not-found", vec!["get", &nobodys, "--peer", &peer, "-o", &out, "--insecure", "--json"]),
        (3, "not-found", vec!["import", &missing, "--dir", &fresh, "--json"]),
        (4, "refused", vec!["get", &wrong, "-o", &out, "--json"]),
        (
            5,
            "corrupt",
            vec!["get", task, "--peer", &peer, "-o", &out, "--insecure", "--digest", &zeros, "--json"],
        ),
        (6, "network", vec!["get", task, "--peer", "tcp://127.0.0.1:1", "-o", &out, "--insecure", "--json"]),
    ] {
        let output = run(&arguments);
        let object = last_object(&output);
        assert_eq!(
            (output.status.code(), &object["code"]),
            (Some(code), &name.into()),
            "{arguments:?}: {object}"
        );
        assert!(object["hint"].is_string(), "it says what to do next: {object}");
        assert!(!Path::new(&out).exists(), "{arguments:?}");
    }
}

#[test]
fn all_protocols_together_give_one_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let source = file(directory.path(), "source", 4 << 20);
    let (store, out) = (path("store"), path("out"));
    let serving = Serving::new(&[&source, "--dir", &store, "--piece-length", "64KiB", "--insecure"]);
    let peers: Vec<_> = PROTOCOLS.iter().map(|protocol| serving.peer(protocol)).collect();
    // Slow enough that every peer has its turn before another has given all.
    let all = peers.join(",");
    let get = ["get", serving.text("task"), "--peer", &all, "--insecure", "-o", &out];
    let got = run(&[&get[..], &["--limit", "20MiB", "--json"]].concat());
    let done = last_object(&got);
    assert_eq!(std::fs::read(&out).unwrap(), std::fs::read(&source).unwrap());
    let shares = done["peers"].as_array().unwrap();
    for peer in peers {
        let share = shares.iter().find(|share| share["peer"] == peer).unwrap_or_else(|| panic!("{done}"));
        assert!(share["pieces"].as_u64().unwrap() > 0, "{peer}: {done}");
    }
}

#[test]
fn where_datagrams_vanish_the_file_comes_another_way_and_the_reason_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let source = file(directory.path(), "source", 1 << 20);
    let (store, out) = (path("store"), path("out"));
    let serving = Serving::new(&[&source, "--dir", &store, "--piece-length", "64KiB", "--insecure"]);
    // It takes every datagram, and answers none.
    let hole = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let ways = format!("quic://{}+{}", hole.local_addr().unwrap(), serving.peer("tcp"));
    let get = ["get", serving.text("task"), "--peer", &ways, "--insecure", "-o", &out];
    let got = run(&[&get[..], &["--json"]].concat());
    let done = last_object(&got);
    assert_eq!(std::fs::read(&out).unwrap(), std::fs::read(&source).unwrap());
    assert_eq!(done["ways"][0]["bytes"], 0, "{done}");
    assert_eq!(done["ways"][1]["way"], serving.peer("tcp"), "{done}");
    assert_eq!(done["ways"][1]["bytes"], 1 << 20, "{done}");
    let text = String::from_utf8(got.stdout).unwrap();
    let events = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let late = |event: &serde_json::Value| event["event"] == "way" && event["state"] == "late";
    let late = events.into_iter().find(late).unwrap_or_else(|| panic!("{text}"));
    assert!(late["way"].as_str().unwrap().starts_with("quic://"), "{late}");
    let told = String::from_utf8(run(&get).stderr).unwrap();
    assert!(told.contains("no connection in"), "{told}");
}

#[test]
fn a_range_is_fetched_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let source = file(directory.path(), "source", 200_000);
    let (store, out) = (path("store"), path("out"));
    let serving = Serving::new(&[&source, "--dir", &store, "--piece-length", "64KiB"]);
    let got = run(&["get", serving.text("ticket"), "-o", &out, "--range", "65530-65545", "--json"]);
    // No more than was asked for.
    assert_eq!(last_object(&got)["bytes"], 16);
    assert_eq!(std::fs::read(&out).unwrap(), std::fs::read(&source).unwrap()[65_530..=65_545]);
    let beyond = run(&["get", serving.text("ticket"), "-o", &out, "--range", "0-200000", "--json"]);
    assert_eq!(beyond.status.code(), Some(2));
}

#[test]
fn killed_at_any_moment_get_goes_on_where_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let source = file(directory.path(), "source", 32 << 20);
    let (store, out) = (path("store"), path("out"));
    let serving = Serving::new(&[&source, "--dir", &store, "--piece-length", "64KiB"]);
    // Each process is killed after it has told of some pieces, so that each makes progress: how many is drawn, and how far
    // the next ones are by then nobody knows. What the limit lets through at once, ten times, is less than the file, so none
    // finishes before it is killed.
    let mut verified = std::collections::BTreeSet::new();
    let draw = |turn: u64| std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), turn);
    for kill_after in (0..10).map(|turn| 1 + draw(turn) as usize % 8) {
        let arguments = ["get", serving.text("ticket"), "-o", &out, "--limit", "1MiB", "--json"];
        let mut child =
            vortex().args(arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let events = lines.map(|line| serde_json::from_str::<serde_json::Value>(&line).unwrap());
        let pieces = events.filter(|event| event["event"] == "piece").take(kill_after);
        for piece in pieces {
            let number = piece["piece"].as_u64().unwrap();
            assert!(verified.insert(number), "piece {number} was here already");
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!Path::new(&out).exists());
    }
    let got = run(&["get", serving.text("ticket"), "-o", &out, "--json"]);
    let done = last_object(&got);
    let (resumed, heard) = (done["resumed"].as_u64().unwrap(), verified.len() as u64 * 65_536);
    assert!(resumed >= heard, "{done}");
    // No piece that is told of now was told of before, and each of the file is either here already or is told of.
    let text = String::from_utf8(got.stdout).unwrap();
    let mut fetched = 0;
    for event in text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()) {
        if event["event"] == "piece" {
            assert!(verified.insert(event["piece"].as_u64().unwrap()), "{event}: fetched twice");
            fetched += event["bytes"].as_u64().unwrap();
        }
    }
    assert_eq!(resumed + fetched, 32 << 20);
    assert_eq!(std::fs::read(&out).unwrap(), std::fs::read(&source).unwrap());
    println!(
        "ten kills: {heard} bytes heard of, {resumed} found, {fetched} fetched by the last, 0 of them twice"
    );
}

#[test]
fn the_demo_loses_a_peer_and_no_byte() {
    let output = run(&["demo", "--json"]);
    let verdict = last_object(&output);
    assert_eq!((&verdict["event"], &verdict["identical"]), (&"verdict".into(), &true.into()));
    assert_eq!(verdict["peers"].as_array().unwrap().len(), 3);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.lines().any(|line| line.contains("\"event\":\"peer\"") && line.contains("gone")), "{text}");
}

#[test]
fn a_configuration_is_checked() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("dfdaemon.yaml");
    std::fs::write(&path, "storage:\n  server:\n    quicPrt: 1\n").unwrap();
    let checked = run(&["config", "check", path.to_str().unwrap(), "--json"]);
    assert_eq!(checked.status.code(), Some(2));
    let first = String::from_utf8(checked.stdout).unwrap();
    let first: serde_json::Value = serde_json::from_str(first.lines().next().unwrap()).unwrap();
    assert_eq!((&first["line"], &first["suggestion"]), (&3.into(), &"quicPort".into()));
}

//= VTX-SEC-004 test
//= VTX-SEC-010 test
#[test]
fn nobody_is_trusted_unless_that_is_said_and_then_it_is_said_aloud() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let source = file(directory.path(), "source", 1000);
    let (store, out) = (path("store"), path("out"));
    let serving = Serving::new(&[&source, "--dir", &store, "--insecure"]);
    for protocol in PROTOCOLS {
        let peer = serving.peer(protocol);
        let arguments = ["get", serving.text("task"), "--peer", &peer, "-o", &out];
        let refused = run(&arguments);
        let said = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(2), "{said}");
        assert!(said.contains("certificate") && !Path::new(&out).exists(), "{said}");

        let insecure = run(&[&arguments[..], &["--insecure"]].concat());
        let said = String::from_utf8(insecure.stderr).unwrap();
        assert_eq!(insecure.status.code(), Some(0), "{said}");
        assert!(said.contains("WARN") && said.contains("no peer is verified"), "{said}");
        std::fs::remove_file(&out).unwrap();
    }
    // A server says so before anybody can connect.
    let mut server = vortex()
        .args(["serve", "--dir", &store, "--quic", "127.0.0.1:0", "--insecure"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(server.stderr.take().unwrap()).lines().map_while(Result::ok);
    let warned = lines.take(20).any(|line| line.contains("WARN") && line.contains("no peer is verified"));
    server.kill().unwrap();
    server.wait().unwrap();
    assert!(warned);
}

/// `vortex get --serve`, ended when dropped.
struct Sharing {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
}

impl Sharing {
    fn new(arguments: &[&str]) -> Self {
        let mut child = vortex()
            .args(["get", "--serve", "--insecure", "--json"])
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out }
    }

    /// The next event of this name.
    fn event(&mut self, name: &str) -> serde_json::Value {
        loop {
            let mut line = String::new();
            assert_ne!(self.out.read_line(&mut line).unwrap(), 0, "it ended before `{name}`");
            let event: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert_ne!(event["event"], "error", "{event}");
            if event["event"] == name {
                return event;
            }
        }
    }

    /// Ends in order.
    fn stop(mut self) {
        let stopped = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(stopped.success());
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }
}

impl Drop for Sharing {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_file_spreads_among_those_who_fetch_it() {
    const LEECHERS: usize = 7;
    const LENGTH: usize = 8 << 20;
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let source = file(directory.path(), "source", LENGTH);
    let seed = Serving::new(&[&source, "--dir", &path("store"), "--piece-length", "64KiB", "--insecure"]);
    // Ports that were free a moment ago: everybody has to know the others before they are there.
    let sockets: Vec<_> = (0..LEECHERS).map(|_| std::net::UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    let addresses: Vec<_> = sockets.iter().map(|socket| socket.local_addr().unwrap().to_string()).collect();
    drop(sockets);
    let mut leechers: Vec<_> = (0..LEECHERS)
        .map(|own| {
            let others = addresses.iter().filter(|address| **address != addresses[own]);
            let mut peers = vec![seed.peer("quic")];
            peers.extend(others.map(|address| format!("quic://{address}")));
            let (peers, out) = (peers.join(","), path(&format!("out{own}")));
            let what = [seed.text("task"), "--peer", &peers, "-o", &out, "--limit", "4MiB"];
            Sharing::new(&[&what[..], &["--quic", &addresses[own], "--tcp", "127.0.0.1:0"]].concat())
        })
        .collect();
    let (mut from_seed, mut from_all) = (0, 0);
    for (own, leecher) in leechers.iter_mut().enumerate() {
        let done = leecher.event("done");
        assert_eq!(std::fs::read(path(&format!("out{own}"))).unwrap(), std::fs::read(&source).unwrap());
        for share in done["peers"].as_array().unwrap() {
            let bytes = share["bytes"].as_u64().unwrap();
            from_all += bytes;
            from_seed += if share["peer"] == seed.peer("quic") { bytes } else { 0 };
        }
    }
    assert_eq!(from_all, (LEECHERS * LENGTH) as u64);
    assert!(from_seed * 10 < from_all * 6, "the seed gave {from_seed} of {from_all} bytes");
    // Who is done goes on: a late one needs no seed.
    let task = seed.text("task").to_owned();
    drop(seed);
    let (peer, late) = (format!("quic://{}", addresses[0]), path("late"));
    let got = run(&["get", &task, "--peer", &peer, "-o", &late, "--insecure"]);
    assert_eq!(got.status.code(), Some(0), "{}", String::from_utf8_lossy(&got.stderr));
    assert_eq!(std::fs::read(&late).unwrap(), std::fs::read(&source).unwrap());
    leechers.into_iter().for_each(Sharing::stop);
    let left = std::fs::read_dir(directory.path()).unwrap().map(|it| it.unwrap().file_name());
    let left: Vec<_> = left.filter(|name| name.to_str().unwrap().starts_with('.')).collect();
    assert!(left.is_empty(), "{left:?}");
}
