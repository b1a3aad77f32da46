//! Handshakes of TLS over TCP: who is accepted, who is refused, and what each side is told.

use super::pki::{Ca, Valid, crypto, server};
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use vortex_p2p::transport::tls::{
    self, Admission, By, ClientTls, Identity, Reason, Refusal, ServerIdentity, ServerTls, Trust,
};
use vortex_p2p::transport::{ByteStream, Network, TokioNetwork};

const REQUEST: &[u8] = b"ping";
const ANSWER: &[u8] = b"pong";

/// One request and its answer; the results of the client and the server.
async fn exchange(client: &ClientTls, server: &ServerTls) -> (io::Result<()>, io::Result<()>) {
    let network = TokioNetwork::default();
    let mut listener = network.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let asking = async {
        let stream = network.connect(address).await?;
        let mut stream = tls::connect(client, address, stream).await?;
        round(&mut stream, REQUEST, ANSWER).await
    };
    let answering = async {
        let (stream, _) = listener.accept().await?;
        let mut stream = tls::accept(server, stream).await?;
        let mut request = [0; REQUEST.len()];
        stream.read_exact(&mut request).await?;
        assert_eq!(request, REQUEST);
        stream.write_all(ANSWER).await?;
        stream.shutdown().await
    };
    tokio::join!(asking, answering)
}

async fn round(stream: &mut Box<dyn ByteStream>, request: &[u8], answer: &[u8]) -> io::Result<()> {
    stream.write_all(request).await?;
    stream.flush().await?;
    let mut read = Vec::new();
    stream.read_to_end(&mut read).await?;
    assert_eq!(read, answer);
    Ok(())
}

fn client(trust: &Trust, identity: Option<&Identity>) -> ClientTls {
    ClientTls::new(&crypto(), trust, identity).unwrap()
}

async fn accepted(client: &ClientTls, server: &ServerTls) {
    let (asked, answered) = exchange(client, server).await;
    asked.unwrap();
    answered.unwrap();
}

async fn refused(client: &ClientTls, server: &ServerTls, by_client: bool, reason: Reason) {
    let (asked, answered) = exchange(client, server).await;
    let told = |result: io::Result<()>| {
        let error = result.unwrap_err();
        Refusal::from_io(&error).unwrap_or_else(|| panic!("no refusal: {error:?}"))
    };
    let (asked, answered) = (told(asked), told(answered));
    let (this, other) = if by_client { (asked, answered) } else { (answered, asked) };
    assert_eq!((this.by, this.reason), (By::This, reason), "{this}");
    assert_eq!((other.by, other.reason), (By::Peer, reason), "{other}");
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
