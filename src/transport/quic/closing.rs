//! Closes that leave although the congestion window is full.
//!
//! A packet with nothing but a close in it is not under congestion control (RFC 9002, section 7). quinn 0.11 has it wait
//! for room in the congestion window nevertheless, as soon as anything else was to be sent as well; and what is in
//! flight no longer gets acknowledged then, so it waits for ever. The peer learns of the end by a stateless reset or by its
//! idle timeout, and never of the reason (quinn's issue 2785, mended after 0.11). A server that goes away while it sends is
//! always in that place, and so is one whose search for the path's MTU has just filled a window of 12 kB.
//!
//! So whoever closes here says so before to the connection's congestion controller, which lets everything pass from then on.

use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics};
use quinn::{Connection, VarInt};
use quinn_proto::RttEstimator;
use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

type Factory = Arc<dyn ControllerFactory + Send + Sync>;

/// Whether an endpoint is about to close its connections.
#[derive(Debug, Clone, Default)]
pub(super) struct Closing(Arc<AtomicBool>);

impl Closing {
    /// To be called before the endpoint is closed.
    pub(super) fn begin(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Controllers of `factory`, for connections of this endpoint.
    pub(super) fn controllers(&self, factory: Factory) -> Factory {
        Arc::new(Controllers { factory, endpoint: self.clone() })
    }
}

/// Closes `connection`, and tells the peer `code` and `reason`, whatever is on its way to it.
///
/// Nothing more is read or written, and what the peer has not acknowledged may be lost. For connections of a
/// [`QuicEndpoint`](super::QuicEndpoint): any other is closed as by [`Connection::close`], which may never tell.
#[allow(clippy::disallowed_methods, reason = "this is the one place")]
pub fn close(connection: &Connection, code: impl Into<VarInt>, reason: &[u8]) {
    if let Ok(controller) = connection.congestion_state().into_any().downcast::<UntilClosed>() {
        controller.connection.store(true, Ordering::Release);
    }
    connection.close(code.into(), reason);
}

struct Controllers {
    factory: Factory,
    endpoint: Closing,
}

impl ControllerFactory for Controllers {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(UntilClosed {
            controller: self.factory.clone().build(now, current_mtu),
            endpoint: self.endpoint.clone(),
            connection: Arc::default(),
        })
    }
}

/// A controller until its connection is closed, and none from then on.
struct UntilClosed {
    controller: Box<dyn Controller>,
    endpoint: Closing,
    /// Clones have it in common: quinn gives out no other.
    connection: Arc<AtomicBool>,
}

impl fmt::Debug for UntilClosed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UntilClosed").field("window", &self.window()).finish_non_exhaustive()
    }
}

impl Controller for UntilClosed {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.controller.on_sent(now, bytes, last_packet_number);
    }
    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        self.controller.on_ack(now, sent, bytes, app_limited, rtt);
    }
    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, largest_acked: Option<u64>) {
        self.controller.on_end_acks(now, in_flight, app_limited, largest_acked);
    }
    fn on_congestion_event(&mut self, now: Instant, sent: Instant, persistent: bool, lost_bytes: u64) {
        self.controller.on_congestion_event(now, sent, persistent, lost_bytes);
    }
    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.controller.on_mtu_update(new_mtu);
    }
    fn window(&self) -> u64 {
        // Beyond u32::MAX, quinn does not pace either.
        match self.connection.load(Ordering::Acquire) || self.endpoint.0.load(Ordering::Acquire) {
            true => u64::MAX,
            false => self.controller.window(),
        }
    }
    fn metrics(&self) -> ControllerMetrics {
        self.controller.metrics()
    }
    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self {
            controller: self.controller.clone_box(),
            endpoint: self.endpoint.clone(),
            connection: self.connection.clone(),
        })
    }
    fn initial_window(&self) -> u64 {
        self.controller.initial_window()
    }
    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
