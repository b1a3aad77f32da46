//! What systemd is told, and certificates that change while connections live.

use super::{path, write_identity};
use crate::cli::{PROTOCOLS, Serving, file, run, vortex};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use vortex_p2p::client::{Ask, QuicClient, TcpClient};
use vortex_p2p::runtime::{SharedRuntime, TokioRuntime};
use vortex_p2p::session::Deadlines;
use vortex_p2p::store::TaskKey;
use vortex_p2p::ticket::Ticket;
use vortex_p2p::transport::quic::{QuicClient as Dialer, QuicEndpoint, QuicSettings};
use vortex_p2p::transport::tls::{self, ClientTls, Crypto, Fingerprint, Trust};
use vortex_p2p::transport::{Network as _, SocketSettings, TokioNetwork};

/// The socket that systemd would listen on.
struct Notified(UnixDatagram);

impl Notified {
    fn bind(path: &str) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        // Only a server that does not tell waits for so long.
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Self(socket)
    }

    fn next(&self) -> String {
        let mut message = [0; 512];
        let length = self.0.recv(&mut message).unwrap();
        String::from_utf8(message[..length].to_vec()).unwrap()
    }
}

/// A server that shows the certificate in `directory`, and tells what it does.
fn serve(directory: &tempfile::TempDir, source: &str) -> (Serving, Notified) {
    let notified = Notified::bind(&path(directory, "notify"));
    let mut command = vortex();
    command.args(["serve", source, "--dir", &path(directory, "store")]);
    command.args(["--cert", &path(directory, "cert.pem"), "--key", &path(directory, "key.pem")]);
    command.args(PROTOCOLS.iter().flat_map(|protocol| [format!("--{protocol}"), "127.0.0.1:0".to_owned()]));
    command.env("NOTIFY_SOCKET", path(directory, "notify")).stderr(Stdio::null());
    let serving = Serving::start(command);
    assert_eq!(notified.next(), "READY=1\n");
    (serving, notified)
}

fn reload(serving: &Serving, notified: &Notified) {
    serving.signal("HUP");
    let reloading = notified.next();
    assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
    assert_eq!(notified.next(), "READY=1\n");
}

#[test]
fn systemd_is_told_of_the_begin_a_reload_and_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let source = file(directory.path(), "source", 1000);
    write_identity(directory.path());
    let (mut serving, notified) = serve(&directory, &source);
    reload(&serving, &notified);
    serving.signal("TERM");
    assert_eq!(notified.next(), "STOPPING=1\n");
    assert_eq!(serving.ended(), Some(0));
}

/// Connections to a server that shows the certificate with this fingerprint.
struct Client {
    runtime: SharedRuntime,
    endpoint: QuicEndpoint,
    network: TokioNetwork,
    crypto: Crypto,
}

impl Client {
    async fn new() -> Self {
        let runtime: SharedRuntime = Arc::new(TokioRuntime);
        let network = TokioNetwork::new(SocketSettings::default());
        let bind = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let endpoint = QuicEndpoint::bind(
            runtime.clone(),
            Arc::new(network.clone()),
            bind,
            QuicSettings::default(),
            None,
        );
        let endpoint = endpoint.await.unwrap();
        Self { crypto: Crypto::new(runtime.clone()), runtime, endpoint, network }
    }

    fn tls(&self, pin: Fingerprint) -> Arc<ClientTls> {
        Arc::new(ClientTls::new(&self.crypto, &Trust::Pinned(pin), None).unwrap())
    }

    async fn quic(&self, serving: &Serving, pin: Fingerprint) -> Option<QuicClient> {
        let dialer = Dialer::new(self.runtime.clone(), &QuicSettings::default(), self.tls(pin));
        let dialing = self.endpoint.dial(&dialer, serving.text("quic").parse().unwrap()).unwrap();
        let connection = dialing.established().await.ok()?;
        Some(QuicClient::new(connection, self.runtime.clone(), Deadlines::default()))
    }

    async fn tcp(&self, serving: &Serving, pin: Fingerprint) -> Option<TcpClient> {
        let address = serving.text("tcp").parse().unwrap();
        let stream = self.network.connect(address).await.unwrap();
        let stream = tls::connect(&self.tls(pin), address, stream).await.ok()?;
        Some(TcpClient::new(stream, self.runtime.clone(), Deadlines::default()))
    }
}

/// Fetches the first piece of `task` over both connections.
async fn exchange(quic: &QuicClient, tcp: TcpClient, task: TaskKey) -> TcpClient {
    let ask = Ask::new(task.piece(0));
    assert_eq!(quic.request(ask).await.unwrap().collect().await.unwrap().len(), 1000);
    let (give_back, given_back) = oneshot::channel();
    let answer = tcp.request(ask, Box::new(|client| drop(give_back.send(client)))).await;
    assert_eq!(answer.unwrap().collect().await.unwrap().len(), 1000);
    given_back.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_changes_and_connections_live_on() {
    let directory = tempfile::tempdir().unwrap();
    let source = file(directory.path(), "source", 1000);
    let before = write_identity(directory.path());
    let (serving, notified) = serve(&directory, &source);
    let task = serving.text("ticket").parse::<Ticket>().unwrap().task;
    let client = Client::new().await;
    let quic = client.quic(&serving, before).await.unwrap();
    let tcp = exchange(&quic, client.tcp(&serving, before).await.unwrap(), task).await;

    let after = write_identity(directory.path());
    reload(&serving, &notified);
    let tcp = exchange(&quic, tcp, task).await;
    assert!(client.quic(&serving, before).await.is_none(), "a new handshake shows the new certificate");
    assert!(client.tcp(&serving, before).await.is_none());
    let new = client.quic(&serving, after).await.unwrap();
    exchange(&new, client.tcp(&serving, after).await.unwrap(), task).await;

    // Half a file is no certificate: what was shown is shown on.
    std::fs::write(path(&directory, "cert.pem"), "-----BEGIN CERTIFICATE-----\n").unwrap();
    reload(&serving, &notified);
    exchange(&quic, tcp, task).await;
    assert!(client.quic(&serving, after).await.is_some());
}

/// A client's certificate, in a directory of its own.
struct Friend(tempfile::TempDir);

impl Friend {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        write_identity(directory.path());
        Self(directory)
    }

    /// It signed itself, and so vouches for itself.
    fn vouch(&self, ca: &str) {
        std::fs::copy(path(&self.0, "cert.pem"), ca).unwrap();
    }

    /// Over which protocols it gets something.
    fn gets(&self, serving: &Serving, server: &str, out: &str) -> Vec<&'static str> {
        let (cert, key) = (path(&self.0, "cert.pem"), path(&self.0, "key.pem"));
        let get = ["get", serving.text("task"), "-o", out, "--ca", server, "--cert", &cert, "--key", &key];
        let over = |protocol: &str| run(&[&get[..], &["--peer", &serving.peer(protocol)]].concat()).status;
        PROTOCOLS.iter().copied().filter(|protocol| over(protocol).success()).collect()
    }
}

//= VTX-SEC-006 test
#[test]
fn the_authorities_of_clients_change_and_bad_ones_change_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let source = file(directory.path(), "source", 1000);
    write_identity(directory.path());
    let (cert, key, ca) =
        (path(&directory, "cert.pem"), path(&directory, "key.pem"), path(&directory, "ca.pem"));
    let (one, other) = (Friend::new(), Friend::new());
    one.vouch(&ca);
    let notified = Notified::bind(&path(&directory, "notify"));
    let mut command = vortex();
    command.args(["serve", &source, "--dir", &path(&directory, "store")]);
    command.args(["--cert", &cert, "--key", &key, "--ca", &ca]);
    command.args(PROTOCOLS.iter().flat_map(|protocol| [format!("--{protocol}"), "127.0.0.1:0".to_owned()]));
    command.env("NOTIFY_SOCKET", path(&directory, "notify")).stderr(Stdio::piped());
    let mut serving = Serving::start(command);
    assert_eq!(notified.next(), "READY=1\n");
    let out = path(&directory, "out");
    let none: [&str; 0] = [];
    assert_eq!(one.gets(&serving, &cert, &out), PROTOCOLS);
    assert_eq!(other.gets(&serving, &cert, &out), none);

    other.vouch(&ca);
    reload(&serving, &notified);
    assert_eq!(one.gets(&serving, &cert, &out), none, "nobody vouches for it any more");
    assert_eq!(other.gets(&serving, &cert, &out), PROTOCOLS);

    // A good certificate beside authorities that are none: neither is taken.
    let shown = std::fs::read(&cert).unwrap();
    std::fs::write(&ca, "no authority").unwrap();
    write_identity(directory.path());
    reload(&serving, &notified);
    std::fs::write(&cert, shown).unwrap();
    assert_eq!(
        other.gets(&serving, &cert, &out),
        PROTOCOLS,
        "the server shows what it showed, to whom it did"
    );
    assert_eq!(one.gets(&serving, &cert, &out), none);

    serving.signal("TERM");
    let mut log = String::new();
    std::io::Read::read_to_string(&mut serving.stderr(), &mut log).unwrap();
    assert!(log.contains("SIGHUP: the authorities and the certificate (now "), "{log}");
    assert!(log.contains("ca.pem: expected at least one PEM block `CERTIFICATE`, found none"), "{log}");
}

#[test]
fn a_ticket_pins_over_each_protocol() {
    let directory = tempfile::tempdir().unwrap();
    let source = file(directory.path(), "source", 1000);
    let pin = write_identity(directory.path());
    let (serving, _notified) = serve(&directory, &source);
    let ticket = serving.text("ticket");
    assert!(ticket.contains(&pin.to_string()), "{ticket}");
    let wrong = ticket.replace(&pin.to_string(), &"0".repeat(64));
    let out = path(&directory, "out");
    for protocol in PROTOCOLS {
        let refused = run(&["get", &wrong, "-o", &out, "--protocol", protocol, "--json"]);
        assert_eq!(refused.status.code(), Some(4), "{protocol}");
        let told = String::from_utf8(refused.stdout).unwrap();
        assert!(told.contains("expected the certificate with the pinned fingerprint"), "{told}");
        assert!(told.contains(&pin.to_string()), "what was found instead is named: {told}");
        let got = run(&["get", ticket, "-o", &out, "--protocol", protocol]);
        assert_eq!(got.status.code(), Some(0), "{protocol}");
        assert_eq!(std::fs::read(&out).unwrap(), std::fs::read(&source).unwrap());
    }
}
