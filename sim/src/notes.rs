//! What the protocol did in a run, beside the packets that it sent: its own events, and the secrets of its connections.
//!
//! Only a replay takes notes. They are kept with the thread of the run, as everything is that has no other way to reach
//! a run: the library tells its events to whoever listens on the thread.

use crate::host::{Clock, base};
use crate::net::HostId;
use crate::rng::nanos;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::io;
use std::sync::Arc;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};
use vortex_p2p::transport::quic::Qlog;

/// Something that happened on a host, or to the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Virtual nanoseconds since the start of the run.
    pub at: u64,
    /// Who did it.
    pub host: String,
    /// What it was.
    pub text: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Note { at, host, text } = self;
        write!(f, "{:4}.{:09} {host}: {text}", at / 1_000_000_000, at % 1_000_000_000)
    }
}

/// What was noted in a run.
#[derive(Debug, Default)]
pub struct Notes {
    /// In the order in which it happened.
    pub notes: Vec<Note>,
    /// The secrets of every TLS connection, in the format of `SSLKEYLOGFILE`.
    pub keys: String,
    /// The qlog of every QUIC connection and side, by name.
    pub qlogs: BTreeMap<String, Vec<u8>>,
    hosts: BTreeMap<HostId, String>,
    /// The host that runs now, and its clock; the scenario's where there is none.
    now: Option<(Option<HostId>, Arc<dyn Clock>)>,
}

thread_local! {
    static NOTES: RefCell<Option<Notes>> = const { RefCell::new(None) };
}

fn with(act: impl FnOnce(&mut Notes)) {
    NOTES.with_borrow_mut(|notes| notes.as_mut().map(act));
}

/// Takes notes of everything that `run` does on this thread.
pub(crate) fn taken<T>(run: impl FnOnce() -> T) -> (T, Notes) {
    NOTES.set(Some(Notes::default()));
    let result = tracing::subscriber::with_default(Listener, run);
    (result, NOTES.take().unwrap_or_default())
}

/// A host has this name, from now on.
pub(crate) fn name(host: HostId, name: &str) {
    with(|notes| drop(notes.hosts.insert(host, name.to_owned())));
}

/// What follows on this thread is done by `host`, or, without one, by the scenario. Answers with who it was before.
pub(crate) fn enter(host: Option<HostId>, clock: &Arc<dyn Clock>) -> Entered {
    let mut before = None;
    with(|notes| before = notes.now.replace((host, clock.clone())));
    Entered(before)
}

/// Who was at work before; dropped, it is again.
pub(crate) struct Entered(Option<(Option<HostId>, Arc<dyn Clock>)>);

impl Drop for Entered {
    fn drop(&mut self) {
        let before = self.0.take();
        with(|notes| notes.now = before);
    }
}

/// Notes what the scenario does to the world.
pub(crate) fn note(text: impl FnOnce() -> String) {
    with(|notes| notes.add(text()));
}

/// Notes a secret of a TLS connection.
pub(crate) fn secret(label: &str, random: &[u8], secret: &[u8]) {
    with(|notes| {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        // Writing to a string can't fail.
        let _ = writeln!(notes.keys, "{label} {} {}", hex(random), hex(secret));
    });
}

/// What has every QUIC connection noted, in virtual time, where notes are taken.
pub(crate) fn qlog() -> Option<Qlog> {
    let mut taken = None;
    with(|_| taken = Some(Qlog::new(base(), |name| Some(Box::new(Noted(name.to_owned()))))));
    taken
}

/// The qlog of this name among the notes.
struct Noted(String);

impl io::Write for Noted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        with(|notes| notes.qlogs.entry(self.0.clone()).or_default().extend_from_slice(bytes));
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Notes {
    fn add(&mut self, text: String) {
        let Some((host, clock)) = &self.now else { return };
        let host = host.map(|host| self.hosts.get(&host).cloned().unwrap_or_else(|| host.to_string()));
        self.notes.push(Note {
            at: nanos(clock.now()),
            host: host.unwrap_or_else(|| "scenario".to_owned()),
            text,
        });
    }
}

/// Hears the events of the library.
struct Listener;

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::DEBUG && metadata.is_event() && metadata.target().starts_with("vortex")
    }

    fn event(&self, event: &Event<'_>) {
        let mut text = Text::default();
        event.record(&mut text);
        with(|notes| notes.add(format!("{}{}", text.message, text.fields)));
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// An event in words.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string can't fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}
