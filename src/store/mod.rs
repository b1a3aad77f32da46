//! Where pieces are kept: what a server answers from and a downloader writes to.
//!
//! A [`PieceStore`] holds tasks by kind and id, each with its [`Division`] and those pieces that have been received
//! whole. A piece is there from the moment its [`PieceWriter::commit`] returns, with content and metadata as durable as
//! the store makes them, and before that moment no reader sees a byte of it. [`MemoryStore`] is for tests, simulations
//! and small caches; the disk store survives power cuts.
//!
//! The store computes no digest of a piece: the writer has verified the content while it arrived, and whoever serves it
//! may verify again ([`StoredPiece::verify`]) and report a mismatch ([`PieceStore::mark_damaged`]).

#[cfg(feature = "disk")]
pub mod disk;
mod error;
#[cfg(feature = "disk")]
mod manifest;
mod memory;

pub use error::{Missing, StoreError};
#[cfg(feature = "disk")]
pub use manifest::{MAX_MANIFEST_LEN, Manifest, ManifestError};
pub use memory::MemoryStore;

use crate::runtime::BoxFuture;
use crate::watch;
use crate::wire::{
    Bounded, Digest, DigestText, Division, Download, Hasher, Metadata, PieceKind, PieceSpan, TaskId,
    TrafficType, limits,
};
use bytes::Bytes;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A set of piece numbers, compressed: its memory grows with the runs that it holds, not with the task.
pub use roaring::RoaringBitmap as PieceSet;

/// A store, as every part of the crate carries it.
pub type SharedStore = Arc<dyn PieceStore>;

/// The name of a task in a store. One id under two kinds names two tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskKey {
    /// Which kind of task.
    pub kind: PieceKind,
    /// Which task.
    pub id: TaskId,
}

impl TaskKey {
    /// The request for piece `number` of this task.
    #[must_use]
    pub fn piece(self, number: u32) -> Download {
        Download { kind: self.kind, task_id: self.id, number }
    }
}

impl From<Download> for TaskKey {
    fn from(request: Download) -> Self {
        Self { kind: request.kind, id: request.task_id }
    }
}

impl fmt::Display for TaskKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.id)
    }
}

/// A task to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewTask {
    /// Its name.
    pub key: TaskKey,
    /// Its length and that of its pieces.
    pub division: Division,
    /// The digest of the whole content, where it is known.
    pub digest: Option<Digest>,
}

/// A task that is kept, whole or in part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Task {
    /// Its name.
    pub key: TaskKey,
    /// Its length and that of its pieces.
    pub division: Division,
    /// The digest of the whole content, where it is known.
    pub digest: Option<Digest>,
    /// How many of its pieces are held, 0 to [`Division::pieces`].
    pub held: u64,
    /// Whether collection leaves it alone.
    pub pinned: bool,
}

impl Task {
    /// Whether every piece is held.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.held == self.division.pieces()
    }
}

/// The name of the peer that a piece came from; empty where there was none.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ParentId(Box<str>);

impl ParentId {
    /// The parent id; what is beyond [`limits::MAX_PARENT_ID_LEN`] bytes is cut off, since no packet can carry it.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Bounded::cut(text).into()
    }

    /// The text, as a packet carries it.
    #[must_use]
    pub fn as_bounded(&self) -> Bounded<'_, { limits::MAX_PARENT_ID_LEN }> {
        Bounded::cut(&self.0)
    }
}

impl From<Bounded<'_, { limits::MAX_PARENT_ID_LEN }>> for ParentId {
    fn from(text: Bounded<'_, { limits::MAX_PARENT_ID_LEN }>) -> Self {
        Self(text.as_str().into())
    }
}

/// What is known of a piece beside its place and its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provenance {
    /// The digest that was computed over the content.
    pub digest: Digest,
    /// Which peer the piece came from.
    pub parent_id: ParentId,
    /// How long it took to get the piece, in whole seconds.
    pub cost: u64,
    /// When the piece was there, in seconds since the Unix epoch.
    pub created_at: i64,
}

/// A piece that is held. As long as it (or its content) lives, collection leaves its task alone.
#[derive(Debug, Clone)]
pub struct StoredPiece {
    /// Its number in the task.
    pub number: u32,
    /// Where it lies in the task, and its length.
    pub span: PieceSpan,
    /// Its digest and where it came from.
    pub provenance: Provenance,
    /// Its bytes.
    pub content: Arc<dyn Content>,
}

impl StoredPiece {
    /// Its metadata, as a server sends it; `digest` is the text of [`Provenance::digest`].
    #[must_use]
    pub fn metadata<'a>(&'a self, digest: &'a DigestText) -> Metadata<'a> {
        Metadata {
            number: self.number,
            offset: self.span.offset,
            length: self.span.length,
            digest: digest.into(),
            parent_id: self.provenance.parent_id.as_bounded(),
            //= VTX-CNT-014
            traffic_type: TrafficType::REMOTE_PEER,
            cost: self.provenance.cost,
            created_at: self.provenance.created_at,
        }
    }

    /// Reads the whole content and compares it with the digest.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when they differ, and whatever a read fails with.
    pub async fn verify(&self) -> Result<(), StoreError> {
        let mut hasher = Hasher::new(self.provenance.digest.algorithm());
        let mut offset = 0;
        while offset < self.content.len() {
            let part = self.content.read(offset, VERIFY_READ_LEN).await?;
            hasher.update(&part);
            offset += part.len() as u64;
        }
        if hasher.finish() == self.provenance.digest {
            Ok(())
        } else {
            Err(StoreError::Damaged { number: self.number })
        }
    }
}

/// Bytes that verification reads at a time: large enough that the hop to a blocking thread costs nothing beside it.
const VERIFY_READ_LEN: usize = 1 << 20;

/// The bytes of a piece.
#[allow(clippy::len_without_is_empty, reason = "an empty piece is read like any other")]
pub trait Content: Send + Sync + fmt::Debug {
    /// How many there are, 0 to 1 GiB.
    fn len(&self) -> u64;

    /// Reads from `offset` (from the start of the piece): exactly `max` bytes, or all that the piece has from there,
    /// whichever is less. At or past the end that is none.
    ///
    /// Memory of that many bytes is taken, so `max` is the caller's to limit.
    ///
    /// # Errors
    /// [`StoreError::Io`] when the store can't read, [`StoreError::Damaged`] when the stored bytes end early.
    fn read(&self, offset: u64, max: usize) -> BoxFuture<'_, Result<Bytes, StoreError>>;

    /// The file that holds the bytes and where in it they begin, for `sendfile`. The file has other pieces beside
    /// this one: take no more than [`Content::len`] bytes of it.
    fn file(&self) -> Option<(Arc<std::fs::File>, u64)> {
        None
    }
}

/// Writes one piece, in order. Dropped before [`PieceWriter::commit`] has returned, it leaves nothing that is visible.
///
/// A piece has one writer at a time ([`StoreError::Busy`]), and none once it is held ([`StoreError::Held`]): so nobody
/// writes over bytes that are served.
pub trait PieceWriter: Send + fmt::Debug {
    /// Where the piece lies in its task, and its length.
    fn span(&self) -> PieceSpan;

    /// How many bytes of it were written.
    fn written(&self) -> u64;

    /// Appends `content`. It may return before the bytes are on the disk; a failure then shows in a later call.
    ///
    /// # Errors
    /// [`StoreError::Overrun`] when the piece would become longer than it is; [`StoreError::Full`] and
    /// [`StoreError::Io`] from the disk. After an error the writer is of no further use: every later call fails.
    fn write(&mut self, content: Bytes) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Makes the piece durable and then visible, content first, metadata second.
    ///
    /// The caller has verified the content: `provenance` has the digest that it computed.
    ///
    /// Where the returned future is dropped midway the piece may or may not become visible; it is whole either way.
    ///
    /// # Errors
    /// [`StoreError::Incomplete`] when bytes are missing, [`Missing::Task`] when the task was deleted meanwhile,
    /// [`StoreError::Full`] and [`StoreError::Io`] from the disk. The piece is not held then.
    fn commit(self: Box<Self>, provenance: Provenance) -> BoxFuture<'static, Result<(), StoreError>>;
}

/// What collection may leave behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Keep {
    /// At most this many bytes. A task counts with its whole length from its creation.
    pub bytes: Option<u64>,
    /// Only tasks that were read or written within this time.
    pub age: Option<Duration>,
}

/// What collection took away.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Collected {
    /// The tasks, in the order they went.
    pub tasks: Vec<TaskKey>,
    /// Their length in all.
    pub bytes: u64,
}

/// A store of tasks and their pieces.
///
/// Every method may be called from any number of tasks at once.
pub trait PieceStore: Send + Sync + fmt::Debug + 'static {
    /// Makes a task known, without pieces. For one that is known already, with the same division and no other digest,
    /// it changes nothing but to add a digest that was not known before. The length may be what a peer says: neither memory nor
    /// disk is reserved for it.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the task is known with another division or digest; [`StoreError::Full`],
    /// [`StoreError::Io`].
    fn create(&self, task: NewTask) -> BoxFuture<'_, Result<Task, StoreError>>;

    /// The task, if it is known. This is no access in the sense of collection.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    fn task(&self, key: TaskKey) -> BoxFuture<'_, Result<Option<Task>, StoreError>>;

    /// Every task, ordered by key.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    fn tasks(&self) -> BoxFuture<'_, Result<Vec<Task>, StoreError>>;

    /// Which pieces of a task are held, damaged ones excluded.
    ///
    /// # Errors
    /// [`Missing::Task`]; [`StoreError::Io`].
    fn held(&self, key: TaskKey) -> BoxFuture<'_, Result<PieceSet, StoreError>>;

    /// Waits until pieces of any task are committed that were not when this was called; it may return early.
    fn grown(&self) -> BoxFuture<'static, ()>;

    /// The piece that a request asks for.
    ///
    /// # Errors
    /// [`StoreError::Missing`] with the reason; [`StoreError::Damaged`] for a piece that was marked so and has not been
    /// written again; [`StoreError::Io`]. [`StoreError::code`] says how a server answers.
    fn piece(&self, request: Download) -> BoxFuture<'_, Result<StoredPiece, StoreError>>;

    /// A writer for a piece that is not held, or is damaged.
    ///
    /// # Errors
    /// [`Missing::Task`] or [`Missing::Piece`] when the task has no such piece; [`StoreError::Held`] when it is held;
    /// [`StoreError::Busy`] when another writer of this piece lives, or its last bytes are still on their way to the
    /// disk; [`StoreError::Io`].
    fn writer(&self, request: Download) -> BoxFuture<'_, Result<Box<dyn PieceWriter>, StoreError>>;

    /// Takes a piece out of service whose bytes do not match its digest: it is served no more, nor after a restart,
    /// until it has been written again. Without effect on a piece that is not held.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::Io`]: it may be served again after a restart.
    fn mark_damaged(&self, request: Download) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Says whether collection may take a task.
    ///
    /// # Errors
    /// [`Missing::Task`]; [`StoreError::Io`].
    fn pin(&self, key: TaskKey, pinned: bool) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Forgets a task and its pieces, even one that is in use: pieces that are being read stay readable to their
    /// reader, writers fail at their commit. Returns whether there was such a task.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    fn delete(&self, key: TaskKey) -> BoxFuture<'_, Result<bool, StoreError>>;

    /// Deletes tasks, those not accessed for the longest time first, until `keep` holds, or none is left that may go:
    /// a task stays while it is pinned, read or written.
    ///
    /// # Errors
    /// [`StoreError::Io`]; tasks that went before stay gone.
    fn collect(&self, keep: Keep) -> BoxFuture<'_, Result<Collected, StoreError>>;
}

/// Counts commits, for those who wait for the next one.
#[derive(Debug)]
struct Growth(watch::Sender<u64>);

impl Default for Growth {
    fn default() -> Self {
        Self(watch::Sender::new(0))
    }
}

impl Growth {
    fn tell(&self) {
        self.0.modify(|commits| *commits += 1);
    }

    /// From the call on, not from the first poll: who looks at the store in between misses nothing.
    fn wait(&self) -> BoxFuture<'static, ()> {
        let (commits, before) = (self.0.subscribe(), self.0.get());
        // A store that is gone grows no more.
        Box::pin(async move {
            let _ = commits.wait_for(|count| *count != before).await;
        })
    }
}

impl Keep {
    /// Whether a task that was accessed `since` ago is to go, in a store of `bytes`.
    fn wants_less(&self, bytes: u64, since: Duration) -> bool {
        self.bytes.is_some_and(|limit| bytes > limit) || self.age.is_some_and(|limit| since > limit)
    }
}

/// The digest of a task that is known with `division` and `digest` and is created once more as `new`.
fn agree(division: &Division, digest: Option<Digest>, new: &NewTask) -> Result<Option<Digest>, StoreError> {
    if *division != new.division {
        let same = division.length() == new.division.length();
        return Err(StoreError::Conflict { what: if same { "piece length" } else { "length" } });
    }
    match (digest, new.digest) {
        (Some(known), Some(new)) if known != new => Err(StoreError::Conflict { what: "digest" }),
        (known, new) => Ok(known.or(new)),
    }
}
