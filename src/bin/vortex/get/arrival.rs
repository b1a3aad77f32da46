//! The pieces come, and then the file is there.

use super::Arguments;
use super::failed::{explain, export_failed};
use super::range::{Parts, part};
use crate::exit::Failure;
use crate::files;
use crate::progress::Progress;
use futures_util::future::{Either, select};
use std::path::Path;
use std::pin::pin;
use vortex_p2p::downloader::transfer::{Report, Transfer};
use vortex_p2p::store::disk::{DiskStore, ExportError};
use vortex_p2p::store::{NewTask, PieceStore as _, StoreError};
use vortex_p2p::wire::Digest;

/// How often pieces are fetched that came as they should and are others on the disk of this machine. After that it is
/// the disk that has to be looked at.
const ROUNDS: u32 = 3;

/// A file on its way.
pub(super) struct Arrival<'a> {
    pub(super) arguments: &'a Arguments,
    pub(super) store: &'a DiskStore,
    pub(super) task: NewTask,
    pub(super) parts: &'a Parts,
    /// Where a file is written that can't be had by moving the content.
    pub(super) beside: &'a Path,
    pub(super) progress: &'a Progress,
}

impl Arrival<'_> {
    /// Fetches the pieces and puts the file in its place; returns what came of the transfer, and the SHA-256 of the file.
    pub(super) async fn run(&self, transfer: impl Fn() -> Transfer) -> Result<(Report, Digest), Failure> {
        let mut report = self.pieces(transfer()).await?;
        for _ in 1..ROUNDS {
            match self.file().await? {
                Ok(sha256) => return Ok((self.parts.added_to(report), sha256)),
                Err(
                    error @ (ExportError::Store(StoreError::Damaged { .. }) | ExportError::Incomplete { .. }),
                ) => self
                    .progress
                    .say(&format!("pieces changed on the disk here, and are fetched again: {error}")),
                Err(error) => return Err(export_failed(self.arguments, error)),
            }
            add(&mut report, self.pieces(transfer()).await?);
        }
        let sha256 = self.file().await?.map_err(|error| export_failed(self.arguments, error))?;
        Ok((self.parts.added_to(report), sha256))
    }

    /// Fetches the pieces that are missing. The digest of the whole follows them, so that little of it is left at the end.
    async fn pieces(&self, transfer: Transfer) -> Result<Report, Failure> {
        // The transfer would do that as well, but then the digest would begin before it.
        self.store.create(self.task).await?;
        let digest = async {
            match self.arguments.range {
                None => self.store.digest_ahead(self.task.key).await,
                Some(_) => Ok(()),
            }
        };
        let outcome = match select(pin!(transfer.run()), pin!(digest)).await {
            Either::Left((outcome, _)) => outcome,
            Either::Right((digested, transfer)) => {
                if let Err(error) = digested {
                    tracing::warn!(%error, "the digest of the file is computed at the end");
                }
                transfer.await
            }
        };
        self.progress.finish();
        match outcome {
            Ok(report) => Ok(report),
            Err(error) => Err(explain(self.store, self.task.key, error).await),
        }
    }

    /// Puts the file in its place: the whole, or the part that was asked for.
    async fn file(&self) -> Result<Result<Digest, ExportError>, Failure> {
        let Arguments { share, output, range, .. } = self.arguments;
        let exported = match range {
            Some(range) => part(self.store, &self.task, *range, self.parts, self.beside).await,
            // Others still want the pieces.
            None if share.serve => self.store.export(self.task.key, self.beside).await,
            None => return Ok(self.store.give_away(self.task.key, output).await),
        };
        if exported.is_ok() {
            self.rename()?;
        }
        Ok(exported)
    }

    fn rename(&self) -> Result<(), Failure> {
        let output = &self.arguments.output;
        files::rename(self.beside, output).map_err(|error| Failure::file(output, &error))
    }
}

/// What a later transfer of the same file adds to the report.
fn add(report: &mut Report, later: Report) {
    report.elapsed += later.elapsed;
    report.unverified += later.unverified;
    for (peer, later) in report.peers.iter_mut().zip(later.peers) {
        peer.pieces += later.pieces;
        peer.bytes += later.bytes;
        peer.failures += later.failures;
        peer.gone = later.gone;
        peer.last = later.last.or(peer.last.take());
    }
}
