//! Handshakes over both transports: who is accepted, who is refused, and what each side is told.

use super::pki::{Ca, Valid, crypto, server};
use super::{quic, tcp};
use vortex_p2p::transport::tls::{
    Admission, By, ClientTls, Identity, Reason, Refusal, ServerIdentity, ServerTls, Trust,
};

fn client(trust: &Trust, identity: Option<&Identity>) -> ClientTls {
    ClientTls::new(&crypto(), trust, identity).unwrap()
}

/// What each side is told when one request and its answer are exchanged over either transport.
async fn exchanges(
    client: &ClientTls,
    server: &ServerTls,
) -> [(Result<(), Refusal>, Result<(), Refusal>); 2] {
    [tcp::exchange(client, server).await, quic::exchange(client, server).await]
}

async fn accepted(client: &ClientTls, server: &ServerTls) {
    for told in exchanges(client, server).await {
        assert_eq!(told, (Ok(()), Ok(())));
    }
}

/// One line of the table of the book: both sides of both transports are told so.
async fn refused(case: &str, client: &ClientTls, server: &ServerTls, by_client: bool, reason: Reason) {
    let line = format!("| {case} | {} | {reason} |", if by_client { "client" } else { "server" });
    let page = std::fs::read_to_string(crate::committed::path("book/src/using/security.md")).unwrap();
    assert!(page.lines().any(|it| it == line), "expected in the book: {line}");
    for (client, server) in exchanges(client, server).await {
        let (this, other) = if by_client { (client, server) } else { (server, client) };
        let (this, other) = (this.unwrap_err(), other.unwrap_err());
        assert_eq!((this.by, this.reason), (By::This, reason), "{this}");
        assert_eq!((other.by, other.reason), (By::Peer, reason), "{other}");
    }
}

#[tokio::test]
async fn an_insecure_client_takes_any_server() {
    let server = server(Identity::self_signed(&crypto()).unwrap(), &Admission::Anyone);
    accepted(&client(&Trust::Insecure, None), &server).await;
}

#[tokio::test]
async fn a_pinned_client_takes_one_server() {
    //= VTX-SEC-005 test
    let identity = Identity::self_signed(&crypto()).unwrap();
    let pinned = client(&Trust::Pinned(identity.fingerprint().unwrap()), None);
    accepted(&pinned, &server(identity, &Admission::Anyone)).await;
    let other = server(Identity::self_signed(&crypto()).unwrap(), &Admission::Anyone);
    refused("the client pins another certificate", &pinned, &other, true, Reason::Fingerprint).await;
}

#[tokio::test]
async fn authorities_decide_over_servers() {
    //= VTX-SEC-007 test
    let ca = Ca::new("ours");
    let trusting = client(&Trust::authorities(ca.authorities.clone()), None);
    let shown = |identity| server(identity, &Admission::Anyone);
    accepted(&trusting, &shown(ca.issue("d7y", Valid::Now))).await;
    for (case, identity, reason) in [
        ("the server's certificate has expired", ca.issue("d7y", Valid::Before), Reason::Dates),
        ("the server's certificate is not valid yet", ca.issue("d7y", Valid::Later), Reason::Dates),
        ("the server's certificate has another name", ca.issue("other", Valid::Now), Reason::Name),
        (
            "the server's certificate is of another authority",
            Ca::new("theirs").issue("d7y", Valid::Now),
            Reason::Authority,
        ),
        (
            "the server's authority only bears the right name",
            Ca::new("ours").issue("d7y", Valid::Now),
            Reason::Signature,
        ),
        (
            "the server's certificate is signed by itself",
            Identity::self_signed(&crypto()).unwrap(),
            Reason::Authority,
        ),
    ] {
        refused(case, &trusting, &shown(identity), true, reason).await;
    }
    let name = "other".try_into().unwrap();
    let renamed = client(&Trust::Authorities { authorities: ca.authorities.clone(), name }, None);
    accepted(&renamed, &shown(ca.issue("other", Valid::Now))).await;
}

#[tokio::test]
async fn authorities_decide_over_clients() {
    //= VTX-SEC-006 test
    let ca = Ca::new("ours");
    let admission = Admission::Authorities(ca.authorities.clone());
    let server = server(ca.issue("d7y", Valid::Now), &admission);
    assert!(server.demands_identity());
    let showing = |identity: Option<&Identity>| client(&Trust::authorities(ca.authorities.clone()), identity);
    accepted(&showing(Some(&ca.issue("peer", Valid::Now))), &server).await;
    let (expired, theirs) = (ca.issue("peer", Valid::Before), Ca::new("theirs").issue("peer", Valid::Now));
    for (case, identity, reason) in [
        ("the client shows no certificate", None, Reason::Missing),
        ("the client's certificate has expired", Some(&expired), Reason::Dates),
        ("the client's certificate is of another authority", Some(&theirs), Reason::Authority),
    ] {
        refused(case, &showing(identity), &server, false, reason).await;
    }
}

#[tokio::test]
async fn a_server_changes_its_identity_while_it_serves() {
    let (before, after) =
        (Identity::self_signed(&crypto()).unwrap(), Identity::self_signed(&crypto()).unwrap());
    let shown = ServerIdentity::new(before.clone());
    let server = ServerTls::new(&crypto(), &shown, &Admission::Anyone).unwrap();
    accepted(&client(&Trust::Pinned(before.fingerprint().unwrap()), None), &server).await;
    shown.replace(after.clone());
    accepted(&client(&Trust::Pinned(after.fingerprint().unwrap()), None), &server).await;
    let pinned = client(&Trust::Pinned(before.fingerprint().unwrap()), None);
    refused("the client pins another certificate", &pinned, &server, true, Reason::Fingerprint).await;
}

#[test]
fn secrets_are_not_printed() {
    let identity = Identity::self_signed(&crypto()).unwrap();
    assert_eq!(format!("{identity:?}"), format!("Identity(Some({}))", identity.fingerprint().unwrap()));
}
