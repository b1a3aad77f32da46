//! `SO_RCVLOWAT`, which neither the standard library nor `socket2` nor `rustix` has.

use nix::libc;
use nix::sys::socket::{SetSockOpt, sockopt::SetUsize};
use socket2::SockRef;
use std::io;
use tokio::net::TcpStream;

/// How many bytes have to arrive before a socket counts as readable.
#[derive(Debug, Clone, Copy)]
struct LowWater;

// nix's own way to a socket option that it has no name for. The call is in its macro, and so is the proof that it is safe.
nix::setsockopt_impl!(LowWater, libc::SOL_SOCKET, libc::SO_RCVLOWAT, usize, SetUsize);

/// Wakes readers at `bytes`, or at a quarter of the receive buffer.
///
/// Since 4.18 the kernel lowers a mark that the buffer could not hold, or enlarges the buffer; before that, nobody would be
/// woken any more. A quarter, because what arrives in small segments takes several times its length there.
pub(super) fn wake_at(stream: &TcpStream, bytes: usize) -> io::Result<()> {
    let most = if bytes > 1 { SockRef::from(stream).recv_buffer_size()? / 4 } else { 1 };
    set(stream, bytes.min(most))
}

/// Has the kernel hold `bytes` of what arrives, from now on.
///
/// It makes its buffer large enough for a mark, and leaves it so when the mark is gone. Unlike `SO_RCVBUF`, that is not
/// cut to `net.core.rmem_max`, which is 208 KiB on most systems, but to half of what `net.ipv4.tcp_rmem` allows; and the
/// kernel still enlarges the buffer by itself where a path needs more.
pub(super) fn reserve(stream: &TcpStream, bytes: usize) -> io::Result<()> {
    set(stream, bytes)?;
    set(stream, 1)
}

fn set(stream: &TcpStream, bytes: usize) -> io::Result<()> {
    Ok(LowWater.set(stream, &bytes.clamp(1, i32::MAX as usize))?)
}
