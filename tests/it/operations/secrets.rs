//! The one file that secrets go to, and that they go nowhere else.

use super::{path, write_identity};
use crate::cli::{PROTOCOLS, Serving, file, vortex};
use std::io::Read as _;
use std::process::Stdio;

#[test]
fn tls_secrets_are_in_the_key_log_and_in_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let source = file(directory.path(), "source", 100_000);
    write_identity(directory.path());
    let (server_keys, client_keys) = (path(&directory, "server.keys"), path(&directory, "client.keys"));
    let out = path(&directory, "out");
    let mut command = vortex();
    command.args(["serve", &source, "--dir", &path(&directory, "store"), "-vvv"]);
    command.args(["--cert", &path(&directory, "cert.pem"), "--key", &path(&directory, "key.pem")]);
    command.args(PROTOCOLS.iter().flat_map(|protocol| [format!("--{protocol}"), "127.0.0.1:0".to_owned()]));
    command.env("SSLKEYLOGFILE", &server_keys).env("NO_COLOR", "1").stderr(Stdio::piped());
    let mut serving = Serving::start(command);
    let mut log = serving.stderr();
    let logged = std::thread::spawn(move || {
        let mut text = String::new();
        log.read_to_string(&mut text).unwrap();
        text
    });
    let ticket = serving.text("ticket").to_owned();
    let mut all = String::new();
    for protocol in PROTOCOLS {
        let mut get = vortex();
        get.args(["get", &ticket, "-o", &out, "--protocol", protocol, "-vvv"]).env("NO_COLOR", "1");
        let got = get.env("SSLKEYLOGFILE", &client_keys).output().unwrap();
        all.push_str(&String::from_utf8(got.stdout).unwrap());
        all.push_str(&String::from_utf8(got.stderr).unwrap());
        assert_eq!(got.status.code(), Some(0), "{all}");
    }
    serving.signal("TERM");
    serving.ended();
    all.push_str(&logged.join().unwrap());
    assert!(all.contains("TRACE"), "everything was logged");

    // Both sides wrote the same secrets, under the same names, so that either file reads the traffic.
    let keys = |file: &str| -> std::collections::BTreeSet<String> {
        let lines = std::fs::read_to_string(file).unwrap();
        // A server writes the secret of early data where a session is resumed, whether or not any is sent.
        lines.lines().filter(|line| !line.starts_with("CLIENT_EARLY")).map(str::to_owned).collect()
    };
    let (server, client) = (keys(&server_keys), keys(&client_keys));
    assert_eq!(server, client);
    for label in
        ["CLIENT_HANDSHAKE_TRAFFIC_SECRET", "SERVER_HANDSHAKE_TRAFFIC_SECRET", "SERVER_TRAFFIC_SECRET_0"]
    {
        let with_label = client.iter().filter(|line| line.starts_with(label)).count();
        assert!(with_label >= PROTOCOLS.len(), "{with_label} of {label}");
    }
    let key = std::fs::read_to_string(path(&directory, "key.pem")).unwrap();
    let mut secrets: Vec<&str> = client.iter().filter_map(|line| line.split(' ').nth(2)).collect();
    secrets.extend(key.lines().filter(|line| !line.starts_with("-----")));
    assert!(secrets.len() > 10 && secrets.iter().all(|secret| secret.len() >= 32), "{secrets:?}");
    for secret in secrets {
        assert!(!all.contains(secret), "a secret was logged");
        // As bytes in decimal, as `Debug` prints them.
        let bytes: Vec<u8> = secret
            .as_bytes()
            .chunks(2)
            .filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
            .take(16)
            .collect();
        if bytes.len() == 16 {
            let debug = format!("{bytes:?}");
            assert!(!all.contains(debug.trim_matches(['[', ']'])), "a secret was logged");
        }
    }
}
