//! Segments, put in order.

use super::Segment;
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// Directions of connections that are followed at a time; further ones are left out.
const MAX_FLOWS: usize = 4096;
/// Bytes that may wait for an earlier segment, in one direction and in all.
const MAX_WAITING: usize = 4 << 20;
const MAX_WAITING_IN_ALL: usize = 64 << 20;
/// Segments that may wait in one direction: even empty ones cost memory.
const MAX_SEGMENTS: usize = 16_384;

/// One direction of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FlowId {
    /// Who sends.
    pub source: SocketAddr,
    /// Who receives.
    pub destination: SocketAddr,
}

/// What becomes of a direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// The next bytes.
    Data(&'a [u8]),
    /// It has ended, in order or not, or the capture has.
    End,
    /// Bytes are missing in the capture; nothing more comes of this direction.
    Gap,
}

/// The TCP directions of a capture. Memory is bounded: what waits too long for a missing segment becomes a gap.
#[derive(Debug, Default)]
pub struct Flows {
    flows: BTreeMap<FlowId, Flow>,
    waiting: usize,
}

#[derive(Debug, Default)]
struct Flow {
    /// The sequence number of the next byte.
    next: u32,
    /// Bytes handed on so far.
    position: u64,
    /// By position, what arrived too early.
    early: BTreeMap<u64, Vec<u8>>,
    waiting: usize,
    /// Where the direction ends.
    end: Option<u64>,
    /// Nothing more is handed on.
    done: bool,
}

impl Flows {
    /// Takes a segment and hands on the bytes that are next by it.
    ///
    /// # Errors
    /// Those of `sink`.
    pub fn push<E>(
        &mut self,
        segment: &Segment<'_>,
        sink: &mut impl FnMut(FlowId, Event<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let id = FlowId { source: segment.source, destination: segment.destination };
        if !self.flows.contains_key(&id) && self.flows.len() >= MAX_FLOWS {
            return Ok(());
        }
        let begin = segment.sequence.wrapping_add(segment.syn.into());
        let flow = self.flows.entry(id).or_insert_with(|| Flow { next: begin, ..Flow::default() });
        // The same ports again, for another connection: its SYN is not the one that was seen.
        if segment.syn && flow.next.wrapping_sub(flow.position as u32) != begin {
            self.waiting -= flow.waiting;
            let old = std::mem::replace(flow, Flow { next: begin, ..Flow::default() });
            if !old.done {
                sink(id, if old.early.is_empty() { Event::End } else { Event::Gap })?;
            }
        }
        if flow.done {
            return Ok(());
        }
        let before = flow.waiting;
        flow.take(segment, begin, &mut |event| sink(id, event))?;
        let in_all = self.waiting - before + flow.waiting;
        if flow.waiting > MAX_WAITING || flow.early.len() > MAX_SEGMENTS || in_all > MAX_WAITING_IN_ALL {
            flow.give_up();
            sink(id, Event::Gap)?;
        }
        self.waiting = self.waiting - before + flow.waiting;
        Ok(())
    }

    /// The capture has ended.
    ///
    /// # Errors
    /// Those of `sink`.
    pub fn finish<E>(self, sink: &mut impl FnMut(FlowId, Event<'_>) -> Result<(), E>) -> Result<(), E> {
        for (id, flow) in self.flows {
            match flow {
                Flow { done: true, .. } => {}
                Flow { early, .. } if !early.is_empty() => sink(id, Event::Gap)?,
                _ => sink(id, Event::End)?,
            }
        }
        Ok(())
    }
}

impl Flow {
    fn take<E>(
        &mut self,
        segment: &Segment<'_>,
        begin: u32,
        sink: &mut impl FnMut(Event<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        // Sequence numbers wrap; the distance to what is expected does not, within half of them.
        let distance = i64::from(begin.wrapping_sub(self.next).cast_signed());
        let Some(position) = self.position.checked_add_signed(distance) else { return Ok(()) };
        let after = position + segment.payload.len() as u64;
        if segment.fin {
            self.end = Some(after + segment.missing as u64);
        }
        if position <= self.position {
            let known = usize::try_from(self.position - position).unwrap_or(usize::MAX);
            self.hand_on(segment.payload.get(known..).unwrap_or_default(), sink)?;
        } else if segment.payload.len() > self.early.get(&position).map_or(0, Vec::len) {
            // Sent again, and longer: the shorter one is in it.
            let shorter = self.early.insert(position, segment.payload.to_vec());
            self.waiting = self.waiting + segment.payload.len() - shorter.map_or(0, |bytes| bytes.len());
        }
        while let Some((position, bytes)) = self.early.pop_first() {
            if position > self.position {
                self.early.insert(position, bytes);
                break;
            }
            self.waiting -= bytes.len();
            let known = usize::try_from(self.position - position).unwrap_or(usize::MAX);
            self.hand_on(bytes.get(known..).unwrap_or_default(), sink)?;
        }
        if segment.missing > 0 && self.position == after {
            self.give_up();
            return sink(Event::Gap);
        }
        if segment.rst || self.end.is_some_and(|end| end <= self.position) {
            self.give_up();
            return sink(Event::End);
        }
        Ok(())
    }

    fn hand_on<E>(
        &mut self,
        bytes: &[u8],
        sink: &mut impl FnMut(Event<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.position += bytes.len() as u64;
        self.next = self.next.wrapping_add(bytes.len() as u32);
        sink(Event::Data(bytes))
    }

    fn give_up(&mut self) {
        self.early.clear();
        self.waiting = 0;
        self.done = true;
    }
}
