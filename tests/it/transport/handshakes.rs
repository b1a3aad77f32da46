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

async fn refused(client: &ClientTls, server: &ServerTls, by_client: bool, reason: Reason) {
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
    refused(&pinned, &other, true, Reason::Fingerprint).await;
}

#[tokio::test]
async fn authorities_decide_over_servers() {
    //= VTX-SEC-007 test
    let ca = Ca::new("ours");
    let trusting = client(&Trust::authorities(ca.authorities.clone()), None);
    let shown = |identity| server(identity, &Admission::Anyone);
    accepted(&trusting, &shown(ca.issue("d7y", Valid::Now))).await;
    refused(&trusting, &shown(ca.issue("d7y", Valid::Before)), true, Reason::Dates).await;
    refused(&trusting, &shown(ca.issue("d7y", Valid::Later)), true, Reason::Dates).await;
    refused(&trusting, &shown(ca.issue("other", Valid::Now)), true, Reason::Name).await;
    refused(&trusting, &shown(Ca::new("theirs").issue("d7y", Valid::Now)), true, Reason::Authority).await;
    // An authority that only bears the right name.
    refused(&trusting, &shown(Ca::new("ours").issue("d7y", Valid::Now)), true, Reason::Signature).await;
    refused(&trusting, &shown(Identity::self_signed(&crypto()).unwrap()), true, Reason::Authority).await;
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
    refused(&showing(None), &server, false, Reason::Missing).await;
    refused(&showing(Some(&ca.issue("peer", Valid::Before))), &server, false, Reason::Dates).await;
    refused(&showing(Some(&Ca::new("theirs").issue("peer", Valid::Now))), &server, false, Reason::Authority)
        .await;
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
    refused(&client(&Trust::Pinned(before.fingerprint().unwrap()), None), &server, true, Reason::Fingerprint)
        .await;
}

#[test]
fn secrets_are_not_printed() {
    let identity = Identity::self_signed(&crypto()).unwrap();
    assert_eq!(format!("{identity:?}"), format!("Identity(Some({}))", identity.fingerprint().unwrap()));
}
