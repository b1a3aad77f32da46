//! Names of files, and names from outside: nothing is written but under the name that was given, no other file is touched on the
//! way, and nothing steers the terminal.

use crate::cli::{Serving, file, run, vortex};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

fn path(directory: &TempDir, name: &str) -> String {
    directory.path().join(name).to_str().unwrap().to_owned()
}

/// A server of one file, kept apart from where files are written to.
fn serving(elsewhere: &TempDir) -> Serving {
    let source = file(elsewhere.path(), "source", 300_000);
    Serving::new(&[&source, "--dir", &path(elsewhere, "store"), "--piece-length", "64KiB"])
}

/// The names in a directory.
fn names(directory: &Path) -> Vec<String> {
    let names =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

#[test]
fn only_a_file_is_replaced() {
    let (elsewhere, directory) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = serving(&elsewhere);
    let ticket = server.text("ticket");
    fs::write(path(&directory, "precious"), "precious").unwrap();
    fs::create_dir(path(&directory, "directory")).unwrap();
    symlink("precious", path(&directory, "link")).unwrap();
    symlink("nowhere", path(&directory, "dangling")).unwrap();
    // As /dev/null and /dev/stdout are for whoever may replace them.
    symlink("/dev/null", path(&directory, "device")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(path(&directory, "socket")).unwrap();
    assert!(Command::new("mkfifo").arg(path(&directory, "pipe")).status().unwrap().success());
    let before = names(directory.path());
    let kinds = [
        ("directory", "a directory"),
        ("link", "a symbolic link"),
        ("dangling", "a symbolic link"),
        ("device", "a symbolic link"),
        ("socket", "a device, a pipe or a socket"),
        ("pipe", "a device, a pipe or a socket"),
    ];
    for (name, kind) in kinds {
        let out = path(&directory, name);
        let is = || format!("{:?}", fs::symlink_metadata(&out).unwrap().file_type());
        let was = is();
        for command in [vec!["get", ticket, "-o", &out], {
            let source = elsewhere.path().join("source");
            vec![
                "import",
                source.to_str().unwrap().to_owned().leak(),
                "--dir",
                path(&elsewhere, "other").leak(),
                "--manifest",
                &out,
            ]
        }] {
            let done = run(&command);
            let told = String::from_utf8_lossy(&done.stderr);
            assert!(
                !done.status.success() && told.contains(&format!("{name}: is {kind}")),
                "{command:?}: {told}"
            );
            assert_eq!((is(), names(directory.path())), (was.clone(), before.clone()), "{command:?}");
        }
    }
    assert_eq!(fs::read(path(&directory, "precious")).unwrap(), b"precious");
}

#[test]
fn a_file_is_replaced_once_the_new_one_is_whole() {
    let (elsewhere, directory) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = serving(&elsewhere);
    let out = path(&directory, "out");
    fs::write(&out, "before").unwrap();
    let nobody = run(&["get", &"0".repeat(64), "--peer", "tcp://127.0.0.1:1", "-o", &out, "--insecure"]);
    assert!(!nobody.status.success());
    assert_eq!(fs::read(&out).unwrap(), b"before");
    assert!(run(&["get", server.text("ticket"), "-o", &out]).status.success());
    assert!(fs::read(&out).unwrap() == fs::read(path(&elsewhere, "source")).unwrap());
    assert_eq!(names(directory.path()), ["out"]);
}

/// Somebody who may write into the directory beside a download, or beside a manifest, leads it to a file that is not its own.
#[test]
fn links_on_the_way_are_not_followed() {
    let (elsewhere, directory) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = serving(&elsewhere);
    let (out, precious) = (path(&directory, "out"), path(&elsewhere, "precious"));
    fs::write(&precious, "precious").unwrap();
    let kept = |after: &str| assert_eq!(fs::read(&precious).unwrap(), b"precious", "{after}");

    fs::create_dir(path(&directory, ".out.vortex")).unwrap();
    symlink(&precious, path(&directory, ".out.vortex/whole")).unwrap();
    let got = run(&["get", server.text("ticket"), "-o", &out, "--range", "70000-200000"]);
    kept("a part of a file");
    let told = String::from_utf8_lossy(&got.stderr);
    assert!(got.status.success(), "{told}");
    assert!(fs::read(&out).unwrap() == fs::read(path(&elsewhere, "source")).unwrap()[70_000..=200_000]);

    for name in ["lock", "index.new", "index.redb", "0000000000000000.content"] {
        let staging = path(&directory, ".out.vortex");
        fs::create_dir(&staging).unwrap();
        symlink(&precious, Path::new(&staging).join(name)).unwrap();
        let _ = run(&["get", server.text("ticket"), "-o", &out]);
        kept(name);
        let _ = fs::remove_dir_all(&staging);
    }
    let missing = path(&elsewhere, "missing");
    fs::create_dir(path(&directory, ".out.vortex")).unwrap();
    symlink(&missing, path(&directory, ".out.vortex/lock")).unwrap();
    assert!(!run(&["get", server.text("ticket"), "-o", &out]).status.success());
    assert!(!Path::new(&missing).exists(), "a file was made through a link");

    symlink(&precious, path(&directory, ".task.json.unfinished")).unwrap();
    let (source, store) = (path(&elsewhere, "source"), path(&elsewhere, "other"));
    let imported = run(&["import", &source, "--dir", &store, "--manifest", &path(&directory, "task.json")]);
    kept("a manifest");
    assert!(!imported.status.success());
}

/// Task ids, tickets and manifests come from wherever they come from.
#[test]
fn names_from_outside_reach_no_file_and_no_screen() {
    let (elsewhere, directory) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (id, pin) = ("ab".repeat(32), "cd".repeat(32));
    let evil = [
        "../../etc/passwd",
        "/etc/passwd",
        "\x1b[2J\x1b]0;owned\x07",
        "a\r\nerror: all is well",
        "\u{202e}drowssap",
        "..",
        "%2e%2e%2f",
        &"a".repeat(5000),
    ];
    let mut asked: Vec<String> = Vec::new();
    for evil in evil {
        asked.push(evil.to_owned());
        asked.push(format!("vortex1/{evil}/{id}/{pin}/tcp@127.0.0.1:1"));
        asked.push(format!("vortex1/piece/{evil}/{pin}/tcp@127.0.0.1:1"));
        asked.push(format!("vortex1/piece/{id}/{evil}/tcp@127.0.0.1:1"));
        asked.push(format!("vortex1/piece/{id}/{pin}/{evil}@127.0.0.1:1"));
        asked.push(format!("vortex1/piece/{id}/{pin}/tcp@{evil}"));
        for (number, field) in ["task", "kind", "digest", "version", "pieces"].into_iter().enumerate() {
            let mut manifest = serde_json::json!({
                "version": 1, "task": id, "kind": "piece", "length": 1, "piece_length": 1, "digest": format!("sha256:{pin}"),
                "pieces": ["crc32:1"],
            });
            manifest[field] = evil.into();
            let name = path(&elsewhere, &format!("{number}.json"));
            fs::write(&name, manifest.to_string()).unwrap();
            asked.push(name);
        }
    }
    for what in &asked {
        let got = vortex()
            .current_dir(directory.path())
            .args(["get", what, "--peer", "tcp://127.0.0.1:1", "--insecure", "-o", "out"])
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&got.stderr);
        let steers = |c: char| c.is_control() && c != '\n' || ('\u{202a}'..='\u{202e}').contains(&c);
        assert!(!told.contains(steers), "{what:?}: {told:?}");
        assert!(!told.lines().any(|line| line == "error: all is well"), "{what:?}: {told:?}");
        assert!(got.stdout.is_empty(), "{what:?}");
        assert!(!got.status.success(), "{what:?}");
        assert_eq!(names(directory.path()), Vec::<String>::new(), "{what:?}");
    }
}
