//! A value that tasks wait for.
//!
//! As tokio's channel of this name, except that whoever waits is woken in the order in which the waiting began. tokio's
//! draws that order from a generator that nobody can seed: a shutdown would then be another run each time, and no
//! simulation could repeat it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// A channel that holds `value` at first.
pub(crate) fn channel<T>(value: T) -> (Sender<T>, Receiver<T>) {
    let sender = Sender::new(value);
    let receiver = sender.subscribe();
    (sender, receiver)
}

/// The side that changes the value.
#[derive(Debug)]
pub(crate) struct Sender<T>(Arc<Shared<T>>);

/// A side that waits for the value. Clones wait for the same.
#[derive(Debug)]
pub(crate) struct Receiver<T>(Arc<Shared<T>>);

/// The sender is gone, and the value is not what was waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Closed;

#[derive(Debug)]
struct Shared<T> {
    state: Mutex<State<T>>,
    changed: Notify,
}

#[derive(Debug)]
struct State<T> {
    value: T,
    closed: bool,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // A change that panicked half way is a value like any other.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Sender<T> {
    pub(crate) fn new(value: T) -> Self {
        let state = Mutex::new(State { value, closed: false });
        Self(Arc::new(Shared { state, changed: Notify::new() }))
    }

    pub(crate) fn subscribe(&self) -> Receiver<T> {
        Receiver(self.0.clone())
    }

    pub(crate) fn send(&self, value: T) {
        self.modify(|old| *old = value);
    }

    /// The value, as it is now.
    pub(crate) fn get(&self) -> T
    where
        T: Copy,
    {
        self.0.lock().value
    }

    pub(crate) fn modify(&self, change: impl FnOnce(&mut T)) {
        change(&mut self.0.lock().value);
        self.0.changed.notify_waiters();
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.changed.notify_waiters();
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Clone> Receiver<T> {
    /// Waits until `wanted` is true of the value.
    ///
    /// # Errors
    /// [`Closed`].
    pub(crate) async fn wait_for(&self, mut wanted: impl FnMut(&T) -> bool) -> Result<T, Closed> {
        loop {
            // Made before the look at the value: no change in between goes unheard.
            let changed = self.0.changed.notified();
            {
                let state = self.0.lock();
                if wanted(&state.value) {
                    return Ok(state.value.clone());
                }
                if state.closed {
                    return Err(Closed);
                }
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::future::{FutureExt, join_all};

    #[tokio::test]
    async fn who_waits_first_is_woken_first() {
        let (sender, receiver) = channel(0);
        let order = Mutex::new(Vec::new());
        let waiting = join_all((0..100).map(|waiter| {
            let (receiver, order) = (receiver.clone(), &order);
            async move {
                assert_eq!(receiver.wait_for(|value| *value == 2).await, Ok(2));
                order.lock().unwrap().push(waiter);
            }
        }));
        let changing = async {
            sender.send(1);
            tokio::task::yield_now().await;
            sender.modify(|value| *value += 1);
        };
        tokio::join!(waiting, changing);
        assert_eq!(order.into_inner().unwrap(), (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn a_change_before_the_wait_counts_and_the_last_sender_ends_it() {
        let (sender, receiver) = channel(0);
        sender.send(1);
        assert_eq!(receiver.wait_for(|value| *value == 1).now_or_never(), Some(Ok(1)));
        assert_eq!(receiver.wait_for(|value| *value == 2).now_or_never(), None);
        drop(sender);
        assert_eq!(receiver.wait_for(|value| *value == 1).now_or_never(), Some(Ok(1)));
        assert_eq!(receiver.wait_for(|value| *value == 2).now_or_never(), Some(Err(Closed)));
    }
}
