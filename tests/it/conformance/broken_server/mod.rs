//! A small server with at most one fault, and the cases that have to catch each fault.

mod quic;
mod react;
mod tcp;

use super::world::{Planted, each_is_caught, fixture, network, runtime};
use react::Broken;
use std::sync::Arc;
use std::time::Duration;
use vortex_p2p::conformance::server::{Target, check};
use vortex_p2p::conformance::{CaseReport, RunSettings, Transport, Waits};
use vortex_p2p::session::Deadlines;

/// What a server does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    // Of answers with content.
    LittleEndian,
    LengthCountsContent,
    LengthCountsHeader,
    MetadataLengthCountsItself,
    HexCrc,
    WrongCrc,
    NoDigest,
    NoColon,
    OtherContent,
    ContentTooLong,
    WrongOffset,
    WrongNumber,
    WrongTag,
    WrongTrafficType,
    LongParentId,
    ParentIdNotUtf8,
    Appended,
    OtherId,
    // Of answers without content.
    CodeBehindMessage,
    ErrorCodeZero,
    LongMessage,
    MessageNotUtf8,
    PathInMessage,
    UnknownTaskIsInternal,
    UnknownPieceIsInvalid,
    OtherKindServed,
    UpperCaseServed,
    TwoAnswers,
    NoAnswerToUnknown,
    // Of reading.
    ReservedUnanswered,
    HangsOnTooLong,
    WaitsForRefusedValue,
    HangsOnHalf,
    EarlyDeadline,
    TruncatedUnanswered,
    ContentPacketUnanswered,
    // Of Close.
    CloseAnswered,
    CloseIgnored,
    CloseWithValueRefused,
    AnswersAfterClose,
    // Of TCP.
    ClosesAfterContent,
    ClosesAfterNotFound,
    ClosesAfterRefusal,
    DropsPipelined,
    ReadsOn,
    ValueNotSkipped,
    StaysOpenAfterTooLong,
    NoIdleTimeout,
    ErrorWhenIdle,
    EarlyIdleTimeout,
    NoLastWords,
    SecondErrorForSkipped,
    // Of QUIC.
    NoFin,
    NoFinAfterError,
    SecondRequestAnswered,
    WaitsForFin,
    NoStopSending,
    WrongStopCode,
    EmptyUnanswered,
    ResetAnswered,
    ResetCodeMatters,
    WrongResetCodeWhenLate,
    NoProgressDeadline,
    CloseCode5,
    LaterStreamsServed,
    DemandsAlpn,
    OtherCertificateName,
    GrantsUnidirectional,
    OpensStream,
    ForbidsMigration,
    ShortIdleTimeout,
    SmallWindows,
    FewStreams,
}

use Fault as F;

/// Every fault, the transports over which it is tried, and the requirements whose cases catch it. No other case may fail.
const FAULTS: &[Planted<Fault>] = {
    const BOTH: &[Transport] = &[Transport::Tcp, Transport::Quic];
    const TCP: &[Transport] = &[Transport::Tcp];
    const QUIC: &[Transport] = &[Transport::Quic];
    &[
        (F::None, BOTH, &[]),
        (F::LittleEndian, BOTH, &["VTX-FRM-003"]),
        (F::LengthCountsContent, TCP, &["VTX-FRM-004"]),
        (F::LengthCountsHeader, TCP, &["VTX-FRM-004"]),
        (F::MetadataLengthCountsItself, TCP, &["VTX-CNT-002"]),
        (F::HexCrc, BOTH, &["VTX-DIG-004"]),
        (F::WrongCrc, TCP, &["VTX-DIG-003"]),
        (F::NoDigest, TCP, &["VTX-DIG-002"]),
        (F::NoColon, TCP, &["VTX-DIG-001"]),
        (F::OtherContent, TCP, &["VTX-REQ-011"]),
        (F::ContentTooLong, BOTH, &["VTX-CNT-017"]),
        (F::WrongOffset, TCP, &["VTX-CNT-008"]),
        (F::WrongNumber, TCP, &["VTX-CNT-006"]),
        (F::WrongTag, TCP, &["VTX-TAG-004"]),
        (F::WrongTrafficType, TCP, &["VTX-CNT-014"]),
        (F::LongParentId, TCP, &["VTX-CNT-012"]),
        (F::ParentIdNotUtf8, TCP, &["VTX-FRM-005"]),
        (F::Appended, TCP, &["VTX-CNT-005"]),
        (F::OtherId, TCP, &["VTX-FRM-006"]),
        (F::CodeBehindMessage, TCP, &["VTX-ERR-001"]),
        (F::ErrorCodeZero, TCP, &["VTX-ERR-004"]),
        (F::LongMessage, TCP, &["VTX-ERR-003"]),
        (F::MessageNotUtf8, TCP, &["VTX-FRM-005"]),
        (F::PathInMessage, TCP, &["VTX-SEC-009"]),
        (F::UnknownTaskIsInternal, TCP, &["VTX-REQ-012"]),
        (F::UnknownPieceIsInvalid, TCP, &["VTX-REQ-004", "VTX-REQ-013"]),
        (F::OtherKindServed, TCP, &["VTX-REQ-014"]),
        (F::UpperCaseServed, TCP, &["VTX-REQ-003"]),
        (F::ReservedUnanswered, BOTH, &["VTX-ERR-008"]),
        (F::HangsOnTooLong, BOTH, &["VTX-FRM-011"]),
        (F::WaitsForRefusedValue, BOTH, &["VTX-FRM-013"]),
        (F::HangsOnHalf, BOTH, &["VTX-ERR-009"]),
        (F::EarlyDeadline, TCP, &["VTX-LIM-001"]),
        (F::ContentPacketUnanswered, TCP, &["VTX-ERR-008"]),
        (F::TruncatedUnanswered, TCP, &["VTX-FRM-014", "VTX-TCP-009"]),
        (F::TruncatedUnanswered, QUIC, &["VTX-FRM-014", "VTX-QUC-022"]),
        (F::TwoAnswers, QUIC, &["VTX-REQ-010"]),
        (F::NoAnswerToUnknown, QUIC, &["VTX-REQ-010", "VTX-REQ-012"]),
        (F::CloseAnswered, BOTH, &["VTX-CLS-003"]),
        (F::CloseIgnored, TCP, &["VTX-CLS-004", "VTX-CLS-005"]),
        (F::CloseIgnored, QUIC, &["VTX-CLS-004", "VTX-CLS-006"]),
        (F::CloseWithValueRefused, BOTH, &["VTX-CLS-002"]),
        (F::AnswersAfterClose, TCP, &["VTX-CLS-005"]),
        (F::ClosesAfterContent, TCP, &["VTX-CLS-004", "VTX-TCP-004", "VTX-TCP-011"]),
        (F::ClosesAfterNotFound, TCP, &["VTX-TCP-004"]),
        (F::ClosesAfterRefusal, TCP, &["VTX-TCP-006"]),
        (F::DropsPipelined, TCP, &["VTX-CLS-004", "VTX-TCP-002", "VTX-TCP-011"]),
        (F::ReadsOn, TCP, &["VTX-TCP-003"]),
        (F::ValueNotSkipped, TCP, &["VTX-TCP-006", "VTX-TCP-008"]),
        (F::StaysOpenAfterTooLong, TCP, &["VTX-TCP-007"]),
        (F::NoIdleTimeout, TCP, &["VTX-TCP-012"]),
        (F::ErrorWhenIdle, TCP, &["VTX-TCP-012"]),
        (F::EarlyIdleTimeout, TCP, &["VTX-LIM-001"]),
        (F::NoLastWords, TCP, &["VTX-TCP-013"]),
        (F::SecondErrorForSkipped, TCP, &["VTX-TCP-008"]),
        (F::NoProgressDeadline, TCP, &["VTX-LIM-002"]),
        (F::NoProgressDeadline, QUIC, &["VTX-LIM-002"]),
        (F::NoFin, QUIC, &["VTX-QUC-015"]),
        (F::NoFinAfterError, QUIC, &["VTX-QUC-015"]),
        (F::SecondRequestAnswered, QUIC, &["VTX-QUC-016"]),
        (F::WaitsForFin, QUIC, &["VTX-QUC-014"]),
        (F::NoStopSending, QUIC, &["VTX-QUC-021"]),
        (F::WrongStopCode, QUIC, &["VTX-QUC-021"]),
        (F::EmptyUnanswered, QUIC, &["VTX-QUC-022"]),
        (F::ResetAnswered, QUIC, &["VTX-QUC-024"]),
        (F::ResetCodeMatters, QUIC, &["VTX-QUC-035"]),
        (F::WrongResetCodeWhenLate, QUIC, &["VTX-QUC-023"]),
        (F::CloseCode5, QUIC, &["VTX-CLS-004"]),
        (F::LaterStreamsServed, QUIC, &["VTX-CLS-006"]),
        (F::DemandsAlpn, QUIC, &["VTX-QUC-003"]),
        (F::OtherCertificateName, QUIC, &["VTX-QUC-006"]),
        (F::GrantsUnidirectional, QUIC, &["VTX-QUC-019"]),
        (F::OpensStream, QUIC, &["VTX-QUC-018"]),
        (F::ForbidsMigration, QUIC, &["VTX-QUC-010", "VTX-QUC-011"]),
        (F::ShortIdleTimeout, QUIC, &["VTX-QUC-007"]),
        (F::SmallWindows, QUIC, &["VTX-QUC-009"]),
        (F::FewStreams, QUIC, &["VTX-QUC-020"]),
    ]
};

const DEADLINES: Duration = Duration::from_secs(8);

/// What a run against a server with `fault` shows: the requirements whose cases fail, and which those are.
async fn run(fault: Fault, transport: Transport) -> Vec<CaseReport> {
    let fixture = fixture();
    let broken = Broken { fault, fixture: Arc::new(fixture.clone()) };
    let network = network();
    let address = broken.listen(&*network, transport).await;
    let deadlines =
        Deadlines { request: DEADLINES, progress: DEADLINES, idle: DEADLINES, ..Deadlines::default() };
    let target = Target { transport, address, fixture, deadlines, waits: Waits::default() };
    let settings = RunSettings { strict: true, concurrency: 16, ..RunSettings::default() };
    check(runtime(), network, target, &settings).await
}

#[tokio::test(start_paused = true)]
async fn each_fault_of_a_tcp_server_is_caught_by_the_case_that_names_it() {
    each_is_caught(FAULTS, Transport::Tcp, run).await;
}

#[tokio::test(start_paused = true)]
async fn each_fault_of_a_quic_server_is_caught_by_the_case_that_names_it() {
    each_is_caught(FAULTS, Transport::Quic, run).await;
}
