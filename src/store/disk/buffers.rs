//! Buffers for content on its way out, used again and again.
//!
//! A buffer of this size that is allocated for each read costs more than the read: the kernel takes its pages back and
//! clears them anew each time.

use bytes::Bytes;
use std::mem;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes of a buffer: what a server reads at a time.
const LEN: usize = 256 << 10;

/// Buffers that are kept while nobody uses them, 16 MiB: as much as a QUIC connection has on its way at most.
const KEPT: usize = 64;

/// Buffers that nobody uses at the moment.
#[derive(Debug, Default)]
pub(super) struct Buffers(Arc<Mutex<Vec<Vec<u8>>>>);

/// A buffer in use. Its content is whatever was there before, so it has to be filled as far as it reaches.
#[derive(Debug)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    length: usize,
    /// Where it goes afterwards.
    home: Option<Arc<Mutex<Vec<Vec<u8>>>>>,
}

impl Buffers {
    /// A buffer of `length` bytes. One that is much smaller or larger than those kept here is made for this use alone.
    pub(super) fn take(&self, length: usize) -> Buffer {
        if !(LEN / 2..=LEN).contains(&length) {
            return Buffer { bytes: vec![0; length], length, home: None };
        }
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Buffer { bytes: kept.unwrap_or_else(|| vec![0; LEN]), length, home: Some(Arc::clone(&self.0)) }
    }
}

impl Buffer {
    /// The content, which lives as long as anybody has a part of it.
    pub(super) fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl Deref for Buffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(..self.length).unwrap_or_default()
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let Some(home) = self.home.take() else { return };
        let mut free = home.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < KEPT {
            free.push(mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_when_its_last_part_is_dropped() {
        let buffers = Buffers::default();
        let free = || buffers.0.lock().unwrap().len();
        let mut buffer = buffers.take(LEN - 1);
        buffer.fill(7);
        let place = buffer.as_ptr();
        let whole = buffer.freeze();
        let part = whole.slice(10..20);
        assert_eq!(whole.len(), LEN - 1);
        drop(whole);
        assert_eq!(free(), 0, "a part is still in use");
        assert_eq!(part, [7; 10].as_slice());
        drop(part);
        assert_eq!(free(), 1);
        assert_eq!(buffers.take(LEN).as_ptr(), place);
    }

    #[test]
    fn no_more_are_kept_than_is_said_and_none_of_another_size() {
        let buffers = Buffers::default();
        let many: Vec<Buffer> = (0..KEPT + 3).map(|_| buffers.take(LEN)).collect();
        drop(many);
        drop((buffers.take(LEN / 2 - 1), buffers.take(LEN + 1)));
        assert_eq!(buffers.0.lock().unwrap().len(), KEPT);
    }
}
