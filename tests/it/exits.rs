//! How `get` ends when it is not done: by which code, with which hint, and what the same command makes of it then.

use crate::cli::{Serving, file, last_object, run, vortex};
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use tempfile::TempDir;

/// Bytes of a piece.
const PIECE: u64 = 64 << 10;

fn path(directory: &TempDir, name: &str) -> String {
    directory.path().join(name).to_str().unwrap().to_owned()
}

/// A server of one file of 4 MiB.
fn serving(directory: &TempDir) -> Serving {
    let source = file(directory.path(), "source", 4 << 20);
    Serving::new(&[&source, "--dir", &path(directory, "store"), "--piece-length", "64KiB", "--insecure"])
}

/// A `get` under way, slow enough to be met in the middle.
struct Getting {
    child: Child,
    out: BufReader<ChildStdout>,
    told: String,
}

impl Getting {
    fn begin(arguments: &[&str]) -> Self {
        let mut child = vortex()
            .args(["get", "--json", "--insecure", "--limit", "1MiB"])
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { out: BufReader::new(child.stdout.take().unwrap()), child, told: String::new() }
    }

    /// Waits until so many pieces have been told of.
    fn pieces(&mut self, count: usize) {
        while self.told.matches(r#""event":"piece""#).count() < count {
            assert_ne!(self.out.read_line(&mut self.told).unwrap(), 0, "{}", self.told);
        }
    }

    fn interrupt(&self) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", "INT", &id]).status().unwrap().success());
    }

    /// Its code, and the last thing that it told.
    fn ended(mut self) -> (Option<i32>, serde_json::Value) {
        self.out.read_to_string(&mut self.told).unwrap();
        let last = self.told.lines().last().unwrap();
        (self.child.wait().unwrap().code(), serde_json::from_str(last).unwrap())
    }
}

impl Drop for Getting {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The same command goes on from `pieces` pieces at least, and brings the file.
fn goes_on(got: &Output, pieces: u64, directory: &TempDir) {
    let done = last_object(got);
    assert_eq!((got.status.code(), &done["event"]), (Some(0), &"done".into()), "{done}");
    assert!(done["resumed"].as_u64().unwrap() >= pieces * PIECE, "{done}");
    let read = |name: &str| std::fs::read(directory.path().join(name)).unwrap();
    assert!(read("out") == read("source"));
}

#[test]
fn without_peers_in_the_middle_it_is_unfinished_and_goes_on_with_another() {
    let directory = tempfile::tempdir().unwrap();
    let (server, out) = (serving(&directory), path(&directory, "out"));
    let (task, peer) = (server.text("task").to_owned(), server.peer("tcp"));
    let mut getting = Getting::begin(&[&task, "--peer", &peer, "-o", &out]);
    getting.pieces(3);
    drop(server);
    let (code, error) = getting.ended();
    assert_eq!((code, &error["code"]), (Some(7), &"unfinished".into()), "{error}");
    let hint = error["hint"].as_str().unwrap();
    assert!(hint.contains("the same command goes on from there") && hint.contains("more peers"), "{hint}");
    assert!(!Path::new(&out).exists());
    let server = serving(&directory);
    let got = run(&["get", &task, "--peer", &server.peer("tcp"), "-o", &out, "--insecure", "--json"]);
    goes_on(&got, 3, &directory);
}

#[test]
fn a_peer_that_never_answers_is_waited_for_until_the_deadline() {
    let directory = tempfile::tempdir().unwrap();
    let (config, out) = (path(&directory, "dfdaemon.yaml"), path(&directory, "out"));
    std::fs::write(&config, "download: {pieceTimeout: 1s}").unwrap();
    // The kernel accepts the connections, and nobody reads what they say.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let (task, peer) = ("0".repeat(64), format!("tcp://{}", silent.local_addr().unwrap()));
    let length = ["--length", "1000", "--piece-length", "64KiB", "--config", &config];
    let get = ["get", &task, "--peer", &peer, "-o", &out, "--insecure"];
    let got = run(&[&get[..], &length, &["--json"]].concat());
    let error = last_object(&got);
    assert_eq!((got.status.code(), &error["code"]), (Some(8), &"timed-out".into()), "{error}");
    assert!(error["hint"].as_str().unwrap().contains("firewall"), "{error}");
}

#[test]
fn a_disk_without_room_is_named_and_with_room_the_same_command_is_done() {
    let directory = tempfile::tempdir().unwrap();
    let (server, out) = (serving(&directory), path(&directory, "out"));
    let peer = server.peer("tcp");
    let get = ["get", server.text("task"), "--peer", &peer, "-o", &out, "--insecure", "--json"];
    // No file may be longer than 2 or 4 MiB, by the shell's unit: the index fits, the task does not.
    let short = Command::new("sh")
        .args(["-c", r#"trap "" XFSZ; ulimit -f 4096; exec "$0" "$@""#, env!("CARGO_BIN_EXE_vortex")])
        .args(get)
        .env_remove("RUST_LOG")
        .output()
        .unwrap();
    let error = last_object(&short);
    assert_eq!((short.status.code(), &error["code"]), (Some(9), &"disk".into()), "{error}");
    assert!(error["hint"].as_str().unwrap().contains("free some space"), "{error}");
    assert!(!Path::new(&out).exists());
    goes_on(&run(&get), 0, &directory);
}

#[test]
fn interrupted_it_keeps_what_was_verified_and_says_how_to_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let (server, out) = (serving(&directory), path(&directory, "out"));
    let peer = server.peer("quic");
    let mut getting = Getting::begin(&[server.text("task"), "--peer", &peer, "-o", &out]);
    getting.pieces(3);
    getting.interrupt();
    let (code, error) = getting.ended();
    assert_eq!((code, &error["code"]), (Some(130), &"interrupted".into()), "{error}");
    assert!(error["hint"].as_str().unwrap().contains("the same command goes on from there"), "{error}");
    assert!(!Path::new(&out).exists());
    let got = run(&["get", server.text("task"), "--peer", &peer, "-o", &out, "--insecure", "--json"]);
    goes_on(&got, 3, &directory);
}

#[test]
fn who_reads_stderr_is_told_what_to_do_next() {
    let directory = tempfile::tempdir().unwrap();
    let out = path(&directory, "out");
    let got = run(&["get", &"0".repeat(64), "--peer", "tcp://127.0.0.1:1", "-o", &out, "--insecure"]);
    let told = String::from_utf8(got.stderr).unwrap();
    assert_eq!(got.status.code(), Some(6), "{told}");
    assert!(told.contains("\nhint: check the address and that the peer runs"), "{told}");
}

/// Over TCP the two do not understand each other where one of them alone has `--insecure`.
#[test]
fn tls_at_one_end_only_is_refused_and_the_flag_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let (insecure, out) = (serving(&directory), path(&directory, "out"));
    let protected = Serving::new(&[&path(&directory, "source"), "--dir", &path(&directory, "protected")]);
    let tls = protected.peer("tcp");
    // The pin of the one, with the address of the other.
    let ticket = protected.text("ticket").replace(protected.text("tcp"), insecure.text("tcp"));
    let task = insecure.text("task");
    let known = ["--length", "4194304", "--piece-length", "64KiB"];
    let asking_plain = ["get", task, "--peer", &tls, "--insecure"];
    let asking_tls = ["get", &ticket, "--protocol", "tcp"];
    for (get, told, hint) in [
        (
            &asking_plain[..],
            "the peer speaks TLS on this port, expected plain Vortex",
            "leave --insecure out",
        ),
        (&asking_tls, "the peer does not speak TLS on this port, expected TLS", "--insecure"),
    ] {
        for known in [&[][..], &known] {
            let got = run(&[get, known, &["-o", &out, "--json"]].concat());
            let error = last_object(&got);
            assert_eq!((got.status.code(), &error["code"]), (Some(4), &"refused".into()), "{error}");
            assert!(error["message"].as_str().unwrap().contains(told), "{error}");
            let hint = if known.is_empty() { hint } else { "--insecure" };
            assert!(error["hint"].as_str().unwrap().contains(hint), "{error}");
        }
    }
}

/// Somebody who may write beside the output leads `get` to a store that is not its own: nothing of it may be touched.
#[test]
fn a_link_in_place_of_its_directory_is_refused_and_what_it_leads_to_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let server = serving(&directory);
    let peer = server.peer("tcp");
    let (other, out) = (path(&directory, "other"), path(&directory, "out"));
    fs::create_dir(&other).unwrap();
    fs::write(path(&directory, "other/index.redb"), "precious").unwrap();
    std::os::unix::fs::symlink(&other, path(&directory, ".out.vortex")).unwrap();
    let got = run(&["get", server.text("task"), "--peer", &peer, "-o", &out, "--insecure"]);
    assert_eq!(got.status.code(), Some(9));
    let told = String::from_utf8_lossy(&got.stderr);
    assert!(told.contains("is a symbolic link"), "{told}");
    assert_eq!(fs::read(path(&directory, "other/index.redb")).unwrap(), b"precious");
    assert!(fs::symlink_metadata(&out).is_err());
}
