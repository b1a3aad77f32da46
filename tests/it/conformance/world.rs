//! What both sides of a test need: the runtime, the network, a task.

use crate::memory::{LOOPBACK, Memory};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;
use vortex_p2p::conformance::server::Fixture;
use vortex_p2p::conformance::{CaseReport, Transport, Verdict};
use vortex_p2p::runtime::{SharedRuntime, TokioRuntime};
use vortex_p2p::store::TaskKey;
use vortex_p2p::transport::Network;
use vortex_p2p::wire::{Algorithm, Digest, Division, PieceKind, PieceLength, TaskId};

/// Bytes of a piece of the fixture: more than what a held-up answer gets through.
pub(super) const PIECE: usize = 64 << 10;

pub(super) fn runtime() -> SharedRuntime {
    Arc::new(TokioRuntime)
}

pub(super) fn network() -> Arc<dyn Network> {
    Arc::new(Memory::default())
}

/// quinn on `network`, without what we set in our own endpoints.
pub(super) async fn endpoint(network: &dyn Network, server: Option<quinn::ServerConfig>) -> quinn::Endpoint {
    let socket = network.udp(LOOPBACK).await.unwrap();
    let runtime = Arc::new(quinn::TokioRuntime);
    quinn::Endpoint::new_with_abstract_socket(quinn::EndpointConfig::default(), server, socket, runtime)
        .unwrap()
}

pub(super) fn content(length: usize) -> Bytes {
    (0..length).map(|at| (at * 31 + at / 251) as u8).collect()
}

pub(super) fn key(kind: PieceKind, content: &[u8]) -> TaskKey {
    let Digest::Sha256(hash) = Digest::of(Algorithm::Sha256, content) else { panic!() };
    TaskKey { kind, id: TaskId::from_sha256(hash) }
}

pub(super) fn division(length: usize) -> Division {
    Division::new(length as u64, PieceLength::try_from(PIECE as u64).unwrap()).unwrap()
}

/// Two whole pieces and a part of one.
pub(super) fn fixture() -> Fixture {
    let whole = content(2 * PIECE + 1000);
    Fixture {
        division: Some(division(whole.len())),
        content: Some(whole.clone()),
        ..Fixture::new(key(PieceKind::Piece, &whole))
    }
}

/// One line for each case that did not pass.
pub(super) fn not_passed(reports: &[CaseReport]) -> Vec<String> {
    let line = |report: &CaseReport| {
        format!("{} {} {}: {}", report.word(), report.transport.name(), report.id, report.message)
    };
    reports.iter().filter(|report| report.word() != "pass").map(line).collect()
}

/// The requirements whose cases failed, each once and in order, and what the cases said.
pub(super) fn failures(reports: &[CaseReport]) -> (Vec<&str>, Vec<String>) {
    let failed = || reports.iter().filter(|report| report.verdict == Verdict::Fail);
    let requirements: BTreeSet<&str> = failed().map(|report| report.id.split('/').next().unwrap()).collect();
    let said = failed().map(|report| format!("{}: {}", report.id, report.message)).collect();
    (requirements.into_iter().collect(), said)
}

/// What is wrong, the transports on which it shows, and the requirements whose cases have to fail for it.
pub(super) type Planted<F> = (F, &'static [Transport], &'static [&'static str]);

/// Each of `faults` that shows on `transport` is caught by the cases that name it, and by no other.
pub(super) async fn each_is_caught<F: Copy + Debug, R: Future<Output = Vec<CaseReport>>>(
    faults: &[Planted<F>],
    transport: Transport,
    run: impl Fn(F, Transport) -> R,
) {
    let mut wrong = Vec::new();
    for (fault, _, expected) in faults.iter().filter(|(_, transports, _)| transports.contains(&transport)) {
        let reports = run(*fault, transport).await;
        let (requirements, said) = failures(&reports);
        if requirements != *expected {
            wrong.push(format!("{fault:?}: expected {expected:?}, got {said:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
