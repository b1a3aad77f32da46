//! dfdaemon.yaml in both of its forms.

use proptest::prelude::*;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;
use std::time::Duration;
use vortex_p2p::config::{ByteSize, Config, ConfigError, Endpoint, ProblemKind, Protocol, TlsFiles, check};

const DEPLOYED: &str = include_str!("config/deployed.yaml");
const PROPOSED: &str = include_str!("config/proposed.yaml");

fn problems(text: &str) -> Vec<String> {
    check(text).problems.iter().map(ToString::to_string).collect()
}

#[test]
fn an_empty_file_gives_the_deployed_defaults() {
    let checked = check("");
    assert_eq!(checked.config, Config::default());
    assert!(checked.problems.is_empty() && checked.unused.is_empty());
    let Config { storage, download, upload, metrics, gc: _ } = checked.config;
    assert_eq!((storage.server.tcp_port, storage.server.quic.port), (4005, 4006));
    assert_eq!((upload.server.port, metrics.port), (4000, 4002));
    assert_eq!(storage.server.ip, Ipv4Addr::UNSPECIFIED);
    assert_eq!(download.protocol, Protocol::Tcp);
    assert_eq!(download.piece_timeout, Duration::from_secs(360));
    assert_eq!(download.concurrent_piece_count.get(), 8);
    assert_eq!(upload.bandwidth_limit, ByteSize(50_000_000_000));
}

#[test]
fn the_deployed_form_is_read_whole() {
    let checked = check(DEPLOYED);
    assert_eq!(checked.problems, []);
    insta::assert_debug_snapshot!("deployed", checked.config);
    let unused: Vec<_> = checked.unused.iter().map(|unused| unused.key.as_str()).collect();
    insta::assert_debug_snapshot!("deployed-unused", unused);
}

#[test]
fn the_proposed_form_is_read_whole() {
    let checked = check(PROPOSED);
    assert_eq!(checked.problems, []);
    assert_eq!(checked.unused, []);
    let quic = checked.config.storage.server.quic;
    assert_eq!(checked.config.download.protocol, Protocol::Quic);
    assert_eq!((quic.port, quic.buffer_size), (4006, ByteSize::mib(4)));
    assert_eq!((quic.idle_timeout, quic.max_connections.get()), (Duration::from_secs(300), 1000));
}

/// One key, one setting: each is read alone, and changes what it names and nothing else.
#[test]
fn every_key_sets_what_it_names() {
    type Expect = fn(&mut Config);
    let cases: &[(&str, Expect)] = &[
        ("storage: {dir: /data}", |c| c.storage.dir = "/data".into()),
        ("storage: {keep: true}", |c| c.storage.keep = Some(true)),
        ("storage: {server: {ip: 127.0.0.1}}", |c| c.storage.server.ip = Ipv4Addr::LOCALHOST.into()),
        ("storage: {server: {tcpPort: 1}}", |c| c.storage.server.tcp_port = 1),
        ("storage: {server: {quicPort: 2}}", |c| c.storage.server.quic.port = 2),
        ("storage: {server: {quic: {port: 2}}}", |c| c.storage.server.quic.port = 2),
        ("storage: {server: {quic: {buffer_size: 1MiB}}}", |c| {
            c.storage.server.quic.buffer_size = ByteSize::mib(1);
        }),
        ("storage: {server: {quic: {idle_timeout: 5m}}}", |c| {
            c.storage.server.quic.idle_timeout = Duration::from_secs(300);
        }),
        ("storage: {server: {quic: {max_connections: 7}}}", |c| {
            c.storage.server.quic.max_connections = NonZeroU32::new(7).unwrap();
        }),
        ("storage: {server: {protocol: grpc}}", |c| c.download.protocol = Protocol::Grpc),
        ("download: {protocol: auto}", |c| c.download.protocol = Protocol::Auto),
        ("download: {pieceTimeout: 30s}", |c| c.download.piece_timeout = Duration::from_secs(30)),
        ("download: {concurrentPieceCount: 3}", |c| {
            c.download.concurrent_piece_count = NonZeroU32::new(3).unwrap();
        }),
        ("download: {bandwidthLimit: 1GiB}", |c| c.download.bandwidth_limit = ByteSize(1 << 30)),
        ("download: {rateLimit: 1GiB}", |c| c.download.bandwidth_limit = ByteSize(1 << 30)),
        ("upload: {bandwidthLimit: 1GB}", |c| c.upload.bandwidth_limit = ByteSize::gb(1)),
        ("upload: {rateLimit: 1GB}", |c| c.upload.bandwidth_limit = ByteSize::gb(1)),
        ("upload: {server: {ip: '::1', port: 3}}", |c| {
            c.upload.server = Endpoint { ip: Ipv6Addr::LOCALHOST.into(), port: 3 };
        }),
        ("upload: {server: {requestRateLimit: 5}}", |c| {
            c.upload.request_rate_limit = NonZeroU32::new(5).unwrap();
        }),
        ("upload: {server: {caCert: a, cert: b, key: c}}", |c| {
            c.upload.server_tls = Some(tls("a", "b", "c"))
        }),
        ("upload: {client: {caCert: a, cert: b, key: c}}", |c| {
            c.upload.client_tls = Some(tls("a", "b", "c"))
        }),
        ("metrics: {server: {ip: 127.0.0.1, port: 0}}", |c| {
            c.metrics = Endpoint { ip: Ipv4Addr::LOCALHOST.into(), port: 0 };
        }),
        ("network: {enableIPv6: true}", |c| {
            c.storage.server.ip = Ipv6Addr::UNSPECIFIED.into();
            c.upload.server.ip = Ipv6Addr::UNSPECIFIED.into();
            c.metrics.ip = Ipv6Addr::UNSPECIFIED.into();
        }),
    ];
    for (text, expect) in cases {
        let mut expected = Config::default();
        expect(&mut expected);
        let checked = check(text);
        assert_eq!(checked.problems, [], "{text}");
        assert_eq!(checked.config, expected, "{text}");
        assert_ne!(checked.config, Config::default(), "{text}");
    }
}

fn tls(ca_cert: &str, cert: &str, key: &str) -> TlsFiles {
    TlsFiles { ca_cert: ca_cert.into(), cert: cert.into(), key: key.into() }
}

#[test]
fn a_typo_is_named_with_its_place_and_the_key_that_was_meant() {
    let text = "storage:\n  servr:\n    tcpPort: 1\n  server:\n    tcp_port: 4005\n    quic:\n      bufferSize: 4MiB\nstorge: {}\nfoo: 1\n";
    assert_eq!(
        problems(text),
        [
            "2:3: storage.servr: unknown key; did you mean `server`?",
            "5:5: storage.server.tcp_port: unknown key; did you mean `tcpPort`?",
            "7:7: storage.server.quic.bufferSize: unknown key; did you mean `buffer_size`?",
            "8:1: storge: unknown key; did you mean `storage`?",
            "9:1: foo: unknown key",
        ]
    );
    assert!(check(text).problems.iter().all(|problem| !problem.is_fatal()));
}

#[test]
fn a_wrong_value_is_named_with_what_was_expected() {
    insta::assert_snapshot!(
        problems(
            "storage:
  keep: 2
  dir: ''
  server:
    ip: localhost
    tcpPort: 65536
    quicPort: -1
    protocol: http
    quic: 4006
download:
  pieceTimeout: 300
  concurrentPieceCount: 0
  bandwidthLimit: [1GB]
upload: yes
"
        )
        .join("\n")
    );
}

#[test]
fn nothing_after_a_key_is_the_default() {
    let checked = check("storage:\n  server:\n    ip:\n    tcpPort: ~\ndownload:\n");
    assert_eq!((checked.problems, checked.config), (vec![], Config::default()));
}

#[test]
fn contradictions_are_named() {
    assert_eq!(
        problems("storage: {server: {quicPort: 1, quic: {port: 2}}}"),
        ["1:20: storage.server.quicPort: is 1, but quic.port is 2: keep one of them"]
    );
    assert_eq!(
        problems("storage: {server: {protocol: quic}}\ndownload: {protocol: tcp}"),
        ["2:12: download.protocol: is tcp, but storage.server.protocol is quic: keep one of them"]
    );
    assert_eq!(
        problems("upload:\n  client:\n    cert: a\n"),
        [
            "3:5: upload.client.cert: caCert, cert and key belong together: without all three nothing is protected"
        ]
    );
}

#[test]
fn yaml_that_is_none_is_refused_with_its_place() {
    for (text, place) in [
        ("storage: [", "1:11: "),
        ("storage:\n  dir: a\n dir: b\n", "3:2: "),
        ("a: 1\na: 2\n", "2:1: `a` is given twice, first in line 1"),
        ("a: 1\n---\nb: 2\n", "2:1: a second document"),
        ("[a]: 1\n", "1:1: a key has to be a word"),
        ("a: *b\n", "1:4: "),
        ("a: &b [*b]\n", "1:8: an alias within"),
        (&"[".repeat(100), "1:33: more than 32 levels"),
    ] {
        let found = problems(text);
        assert_eq!(found.len(), 1, "{text:?}: {found:?}");
        assert!(found[0].starts_with(place), "{text:?}: {found:?}");
        assert_eq!(check(text).problems[0].kind, ProblemKind::Syntax);
    }
    assert_eq!(problems("- a\n"), ["1:1: expected a section, found a list"]);
}

#[test]
fn aliases_are_followed_but_not_without_end() {
    assert_eq!(check("x: &p 4010\nstorage: {server: {tcpPort: *p}}").config.storage.server.tcp_port, 4010);
    let mut bomb = String::from("a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n");
    for level in 1..9 {
        let alias = format!("*a{},", level - 1).repeat(10);
        bomb.push_str(&format!("a{level}: &a{level} [{alias}]\n"));
    }
    let found = problems(&bomb);
    assert!(found[0].ends_with("too many values"), "{found:?}");
}

#[test]
fn a_file_with_a_wrong_value_does_not_load_one_with_an_unknown_key_does() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dfdaemon.yaml");
    std::fs::write(&path, "storge: {}\n").unwrap();
    assert_eq!(Config::load(&path).unwrap().problems.len(), 1);
    std::fs::write(&path, "storge: {}\nstorage: 1\n").unwrap();
    let error = Config::load(&path).unwrap_err();
    assert!(matches!(&error, ConfigError::Invalid { problems, .. } if problems.len() == 2));
    assert!(
        error.to_string().contains("dfdaemon.yaml:2:10: storage: expected a section, found `1`"),
        "{error}"
    );
    let missing = Config::load(&dir.path().join("none.yaml")).unwrap_err();
    assert!(missing.to_string().contains("none.yaml: No such file"), "{missing}");
}

proptest! {
    #[test]
    fn no_text_panics(text in any::<String>()) {
        let _ = check(&text);
    }

    #[test]
    fn nothing_made_of_yaml_panics(parts in proptest::collection::vec(
        prop::sample::select(vec![
            "storage", "server", "quic", ":", ": ", "\n", "\n  ", "\n    ", "- ", "[", "]", "{", "}", ",", "&a ", "*a",
            "!!str ", "|", ">", "'", "\"", "\\u", "#", "---\n", "...\n", "%YAML 1.2\n", "? ", "\t", "~", "1", "\u{feff}", "é",
        ]), 0..60))
    {
        let _ = check(&parts.concat());
    }

    #[test]
    fn a_mutated_file_still_gets_an_answer(at in 0usize..DEPLOYED.len(), cut in 0usize..40, insert in ".{0,5}") {
        let mut text: Vec<char> = DEPLOYED.chars().collect();
        let at = at.min(text.len());
        let end = (at + cut).min(text.len());
        text.splice(at..end, insert.chars());
        let text: String = text.into_iter().collect();
        // To YAML a carriage return ends a line, too.
        let lines = text.matches(['\n', '\r']).count() + 2;
        for problem in check(&text).problems {
            prop_assert!((1..=lines).contains(&problem.at.line), "{}", problem);
        }
    }
}

/// Found by fuzzing: the YAML scanner tells of a word without a colon at the end of the text one line after it.
#[test]
fn a_text_that_breaks_off_is_wrong_in_its_last_line() {
    for text in [
        "download:\n  server:\n    socketPath: /s\n    re",
        "download:\n  server: 1\n  re",
        "a: [\n",
        "a: \"\n\r",
    ] {
        let lines = text.matches(['\n', '\r']).count() + 1;
        let problems = check(text).problems;
        assert!(!problems.is_empty(), "{text:?}");
        assert!(problems.iter().all(|problem| problem.at.line <= lines), "{text:?}: {problems:?}");
    }
}
