//! Why `get` failed, with which exit code, and what to do next.

use super::Arguments;
use crate::exit::{Exit, Failure};
use vortex_p2p::client::{Failure as Refused, RequestError};
use vortex_p2p::downloader::transfer::{DescribeError, TransferError, Verdict};
use vortex_p2p::downloader::{ConnectError, DownloadError};
use vortex_p2p::store::disk::{DiskStore, ExportError};
use vortex_p2p::store::{PieceStore as _, TaskKey};
use vortex_p2p::wire::ErrorCode;

pub(super) fn export_failed(arguments: &Arguments, error: ExportError) -> Failure {
    match error {
        ExportError::WrongDigest { .. } => Failure::new(Exit::Corrupt, error.to_string()).hint(
            "every piece was what its peer said, and the whole is not: ask other peers, or use a manifest",
        ),
        ExportError::Target(error) => Failure::file(&arguments.output, &error),
        ExportError::Store(error) => error.into(),
        ExportError::Incomplete { .. } => Failure::new(Exit::Unfinished, error.to_string()),
    }
}

pub(super) fn describe_failed(error: &DescribeError) -> Failure {
    let exit = match error.download_error() {
        Some(DownloadError::Connect(error)) => match error.reason() {
            ConnectError::Refused(_)
            | ConnectError::Protected
            | ConnectError::Unprotected
            | ConnectError::Limit => Exit::Refused,
            ConnectError::TimedOut(_) => Exit::TimedOut,
            _ => Exit::Network,
        },
        Some(DownloadError::Request(RequestError::TimedOut(_))) => Exit::TimedOut,
        Some(DownloadError::Request(RequestError::Failed(Refused::Refused {
            code: ErrorCode::NotFound,
            ..
        }))) => Exit::NotFound,
        Some(DownloadError::Request(RequestError::Failed(Refused::Rejected(_)))) | None => Exit::Corrupt,
        Some(_) => Exit::Network,
    };
    let failure = Failure::new(exit, error.to_string());
    match error.download_error() {
        Some(DownloadError::Connect(error)) if matches!(error.reason(), ConnectError::Protected) => failure
            .hint("leave --insecure out, and know the peer by the ticket that `vortex serve` prints, or by --ca"),
        _ if exit == Exit::Refused => failure
            .hint("check --ca, --cert and --key, or the ticket; deployed Dragonfly peers need --insecure"),
        _ => failure,
    }
}

/// Why a transfer could not go on, and what to do.
pub(super) async fn explain(store: &DiskStore, key: TaskKey, error: TransferError) -> Failure {
    let message = error.to_string();
    let peers = match error {
        TransferError::Stuck { peers, .. } => peers,
        TransferError::Store(error) => return error.into(),
        TransferError::NoPeers => return Failure::new(Exit::Usage, message),
    };
    let begun = matches!(store.task(key).await, Ok(Some(task)) if task.held > 0);
    let verdicts: Vec<_> =
        peers.iter().filter_map(|peer| peer.last.as_ref().map(|(verdict, _)| *verdict)).collect();
    let all = |verdict| !verdicts.is_empty() && verdicts.iter().all(|it| *it == verdict);
    let exit = if verdicts.contains(&Verdict::Lied) {
        Exit::Corrupt
    } else if all(Verdict::Lacks) {
        Exit::NotFound
    } else if all(Verdict::Refused) {
        Exit::Refused
    } else if begun {
        Exit::Unfinished
    } else if verdicts.contains(&Verdict::TimedOut) {
        Exit::TimedOut
    } else {
        Exit::Network
    };
    let failure = Failure::new(exit, message);
    match begun {
        true => failure
            .hint("what has arrived is kept: the same command goes on from there, and may name more peers"),
        false => failure,
    }
}

impl From<TransferError> for Failure {
    fn from(error: TransferError) -> Self {
        match error {
            TransferError::Store(error) => error.into(),
            other => Self::new(Exit::Network, other.to_string()),
        }
    }
}
