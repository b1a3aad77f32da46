//! QUIC: the handshake and what it says.

use super::basics::finished;
use super::close::held_up;
use super::dial::{Dial, Dialed};
use super::talk::Talk;
use super::{Subject, cases};
use crate::conformance::case::{Shown, Stop, blame, ensure, fail, skip};
use crate::conformance::observe::Parameters;
use quinn::ConnectionError;
use rustls::pki_types::CertificateDer;
use std::net::SocketAddr;

cases! {
    "VTX-QUC-001" Quic Nothing "a handshake in QUIC version 1 with TLS 1.3" => |s: Subject| async move {
        s.dial(Dial::default()).await.map(drop)
    };
    "VTX-QUC-003" Quic Nothing "the alert no_application_protocol to a client that offers h3" => alpn_refused;
    "VTX-QUC-003/none" Quic Nothing "a handshake without application protocols" => no_alpn;
    "VTX-QUC-005/other" Quic Nothing "a handshake under another server name" => |s| named(s, "example.org");
    "VTX-QUC-005/none" Quic Nothing "a handshake without a server name" => |s| named(s, "192.0.2.1");
    "VTX-QUC-006" Quic Nothing "the name d7y in a certificate that the server made itself" => certificate;
    "VTX-QUC-007" Quic Nothing "a max_idle_timeout of 30000 ms" => |s| parameter(s, Parameters::MAX_IDLE_TIMEOUT, |ms| ms == 30_000);
    "VTX-QUC-009/stream" Quic Nothing "credit of at least 16 MiB for a stream" => |s| {
        parameter(s, Parameters::INITIAL_MAX_STREAM_DATA_BIDI_REMOTE, |bytes| bytes >= 16 << 20)
    };
    "VTX-QUC-009/connection" Quic Nothing "credit of at least 16 MiB for the connection" => |s| {
        parameter(s, Parameters::INITIAL_MAX_DATA, |bytes| bytes >= 16 << 20)
    };
    "VTX-QUC-010" Quic Nothing "no disable_active_migration" => migration_allowed;
    "VTX-QUC-011" Quic Nothing "an answer that goes on when the client has moved to another port" => migrates;
    "VTX-QUC-018" Quic Nothing "no stream opened by the server" => opens_nothing;
    "VTX-QUC-019" Quic Nothing "no unidirectional streams granted" => |s| parameter(s, Parameters::INITIAL_MAX_STREAMS_UNI, |count| count == 0);
    "VTX-QUC-019/later" Quic Nothing "no unidirectional streams granted later" => grants_nothing;
    "VTX-QUC-020" Quic Nothing "100 bidirectional streams granted" => |s| parameter(s, Parameters::INITIAL_MAX_STREAMS_BIDI, |count| count >= 100);
    "VTX-QUC-020/again" Quic Nothing "more streams granted as streams end: 150 requests on a connection" => grants_again;
}

/// QUIC's error code for the TLS alert no_application_protocol.
pub(super) const NO_APPLICATION_PROTOCOL: u64 = 0x178;

/// The error code with which the peer closed the connection, of QUIC's own.
pub(super) fn transport_code(error: &ConnectionError) -> Option<u64> {
    match error {
        ConnectionError::ConnectionClosed(close) => Some(u64::from(close.error_code)),
        _ => None,
    }
}

async fn alpn_refused(subject: Subject) -> Shown {
    match subject.try_dial(Dial { alpn: vec![b"h3".to_vec()], ..Dial::default() }).await? {
        Ok(_) => fail("a handshake"),
        Err(error) => ensure(transport_code(&error) == Some(NO_APPLICATION_PROTOCOL), || error.to_string()),
    }
}

async fn no_alpn(subject: Subject) -> Shown {
    match subject.try_dial(Dial::default()).await? {
        Err(error) if transport_code(&error) == Some(NO_APPLICATION_PROTOCOL) => fail(error.to_string()),
        Err(error) => blame("VTX-QUC-001", error.to_string()),
        Ok(_) => Ok(()),
    }
}

async fn named(subject: Subject, name: &str) -> Shown {
    // Were it for another reason, the handshake under the usual name would fail, too.
    subject.dial(Dial::default()).await?;
    match subject.try_dial(Dial { name: name.to_owned(), ..Dial::default() }).await? {
        Ok(_) => Ok(()),
        Err(error) => fail(error.to_string()),
    }
}

async fn certificate(subject: Subject) -> Shown {
    let Dialed { connection, .. } = subject.dial(Dial::default()).await?;
    let chain =
        connection.peer_identity().and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
    let Some(certificate) = chain.as_ref().and_then(|chain| chain.first()) else {
        return blame("VTX-QUC-001", "no certificate");
    };
    match self_issued(certificate) {
        Some(true) => {}
        _ => return skip("the certificate was issued by another than the server"),
    }
    // In DER, a dNSName is the byte 0x82, a length and the name.
    let named = certificate.as_ref().windows(5).any(|bytes| bytes == b"\x82\x03d7y");
    ensure(named, || "a certificate without that name".to_owned())
}

/// Whether issuer and subject of a certificate are the same.
fn self_issued(certificate: &[u8]) -> Option<bool> {
    let (mut rest, _) = element(certificate)?;
    let (mut body, _) = element(rest)?;
    rest = body;
    if rest.first() == Some(&0xA0) {
        body = element(rest)?.1;
    }
    // Serial number and algorithm.
    for _ in 0..2 {
        body = element(body)?.1;
    }
    let (issuer, body) = element(body)?;
    let (_validity, body) = element(body)?;
    let (subject, _) = element(body)?;
    Some(issuer == subject)
}

/// The contents of the DER element at the front, and what follows it.
fn element(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&first, rest) = bytes.get(1..)?.split_first()?;
    let count = usize::from(first & 0x7F);
    let (length, rest) = match first {
        0..0x80 => (usize::from(first), rest),
        _ if count <= 3 => {
            let (digits, rest) = rest.split_at_checked(count)?;
            (digits.iter().fold(0, |sum, digit| sum << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

async fn parameter(subject: Subject, id: u64, holds: fn(u64) -> bool) -> Shown {
    let number = subject.dial(Dial::default()).await?.parameters.number(id);
    ensure(holds(number), || format!("the transport parameter 0x{id:02x} is {number}"))
}

async fn migration_allowed(subject: Subject) -> Shown {
    let Dialed { parameters, .. } = subject.dial(Dial::default()).await?;
    ensure(!parameters.has(Parameters::DISABLE_ACTIVE_MIGRATION), || "disable_active_migration".to_owned())
}

async fn migrates(subject: Subject) -> Shown {
    let (dialed, mut answer) = held_up(&subject).await?;
    let bind = dialed.endpoint.local_addr().map(|address| SocketAddr::new(address.ip(), 0));
    let bind = bind.map_err(|error| Stop::Skip(error.to_string()))?;
    if let Err(error) = dialed.endpoint.rebind(bind).await {
        return skip(format!("this runner can't move: {error}"));
    }
    answer.content_or("VTX-QUC-011").await.map(drop).map_err(|stop| match stop {
        // What was begun and is not finished is the move's fault.
        Stop::Fail { requirement: Some("VTX-CNT-017" | "VTX-FRM-001"), seen } => {
            Stop::Fail { requirement: None, seen }
        }
        other => other,
    })
}

async fn opens_nothing(subject: Subject) -> Shown {
    let dialed = subject.dial(Dial { grant: 8, ..Dial::default() }).await?;
    let mut talk = Talk::new(subject.clone(), subject.stream(&dialed.connection).await?);
    talk.send(&subject.ask(1, 0)).await;
    talk.finish().await;
    talk.content().await?;
    let opened = futures_util::future::select(
        Box::pin(dialed.connection.accept_uni()),
        Box::pin(dialed.connection.accept_bi()),
    );
    match subject.runtime.timeout(subject.target.waits.quiet, opened).await {
        Err(_) => Ok(()),
        Ok(_) if dialed.connection.close_reason().is_some() => fail("the end of the connection"),
        Ok(_) => fail("a stream of the server"),
    }
}

#[allow(clippy::disallowed_methods, reason = "it plays a client that does what none may")]
async fn grants_nothing(subject: Subject) -> Shown {
    let Dialed { connection, .. } = subject.dial(Dial::default()).await?;
    match subject.runtime.timeout(subject.target.waits.quiet, connection.open_uni()).await {
        Err(_) => Ok(()),
        Ok(Ok(_)) => fail("a unidirectional stream"),
        Ok(Err(error)) => fail(error.to_string()),
    }
}

async fn grants_again(subject: Subject) -> Shown {
    let dialed = subject.dial(Dial::default()).await?;
    for _ in 0..150 {
        let mut talk = Talk::new(subject.clone(), subject.stream(&dialed.connection).await?);
        talk.send(&subject.ask_unknown(1)).await;
        talk.finish().await;
        talk.answer().await?;
        // A stream that does not end makes no room for another.
        finished(&mut talk).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn issuer_and_subject_are_compared() {
        let key = rcgen::KeyPair::generate().unwrap();
        let named = |name: &str| {
            let mut parameters = rcgen::CertificateParams::new(vec!["d7y".to_owned()]).unwrap();
            parameters.distinguished_name.push(rcgen::DnType::CommonName, name);
            parameters
        };
        let own = named("d7y").self_signed(&key).unwrap();
        assert_eq!(self_issued(own.der()), Some(true));
        let authority = rcgen::Issuer::new(named("authority"), rcgen::KeyPair::generate().unwrap());
        let other = named("d7y").signed_by(&key, &authority).unwrap();
        assert_eq!(self_issued(other.der()), Some(false));
    }
}
