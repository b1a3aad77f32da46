//! The transports over real loopback sockets.

#[cfg(all(feature = "sendfile", target_os = "linux"))]
mod bursts;
mod handshakes;
mod pki;
mod quic;
mod seeded;
#[cfg(all(feature = "sendfile", target_os = "linux"))]
mod sendfile;
mod sessions;
mod suites;
mod tcp;
mod world;

/// The value of `future`, if it is ready at once.
fn at_once<T>(future: std::pin::Pin<&mut impl Future<Output = T>>) -> Option<T> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match future.poll(&mut context) {
        std::task::Poll::Ready(value) => Some(value),
        std::task::Poll::Pending => None,
    }
}
