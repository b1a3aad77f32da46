//! Files into sockets from a thread that blocks.

use super::at_once;
use super::sendfile::{CONTENT, SIZE, file, pair};
use crate::clock::Stopped;
use std::io::ErrorKind;
use std::pin::pin;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use vortex_p2p::runtime::SharedRuntime;
use vortex_p2p::transport::{Burst, ByteStream, FileSend};

fn steps(step: Duration) -> SharedRuntime {
    Stopped::stepping(step)
}

fn nonblocking(stream: &dyn ByteStream) -> bool {
    socket2::SockRef::from(stream.socket().unwrap()).nonblocking().unwrap()
}

/// Sends what is left as tasks do.
async fn finish(sending: &mut FileSend, stream: &dyn ByteStream) {
    while sending.step(stream.socket().unwrap(), u64::MAX).await.unwrap() != 0 {}
}

#[tokio::test]
async fn what_bursts_and_steps_send_is_what_the_file_has() {
    let (mut sender, mut reader) = pair().await;
    let runtime = steps(Duration::ZERO);
    let (offset, length) = (12_345, SIZE - 23_456);
    let mut sending = FileSend::new(file(&CONTENT), offset as u64, length as u64).unwrap();
    let reading = async {
        let mut received = vec![0; length];
        reader.read_exact(&mut received).await.unwrap();
        received
    };
    let bursts = async {
        let mut sum = 0;
        while sending.remaining() > 0 {
            let before = sending.remaining();
            let burst = sending.burst(&runtime, &mut *sender, u64::MAX, ()).await.unwrap().unwrap();
            assert!(burst.sent <= FileSend::BURST);
            assert_eq!(before - sending.remaining(), burst.sent);
            assert!(nonblocking(&*sender), "tasks use it again");
            sum += burst.sent;
            // A reader without its turn looks slow.
            if burst.slow {
                sum += sending.step(sender.socket().unwrap(), 1 << 20).await.unwrap();
            }
        }
        assert_eq!(sum, length as u64);
    };
    let (received, ()) = tokio::join!(reading, bursts);
    assert!(received == CONTENT[offset..offset + length]);
}

#[tokio::test]
async fn no_more_is_sent_than_is_asked_for() {
    let (mut sender, mut reader) = pair().await;
    let runtime = steps(Duration::ZERO);
    let mut sending = FileSend::new(file(&CONTENT), 0, 1000).unwrap();
    for (limit, sent) in [(3, 3), (0, 0), (7, 7), (u64::MAX, 990), (u64::MAX, 0)] {
        let burst = sending.burst(&runtime, &mut *sender, limit, ()).await.unwrap();
        assert_eq!(burst, Some(Burst { sent, slow: false }));
    }
    let mut received = [0; 1000];
    reader.read_exact(&mut received).await.unwrap();
    assert_eq!(received, CONTENT[..1000]);
}

#[tokio::test]
async fn a_reader_that_stops_has_the_thread_no_longer_and_gets_the_rest_all_the_same() {
    let (mut sender, mut reader) = pair().await;
    // Its clock stands still: what ends the burst is the socket's own patience.
    let runtime = steps(Duration::ZERO);
    let mut sending = FileSend::new(file(&CONTENT), 0, SIZE as u64).unwrap();
    loop {
        let burst = sending.burst(&runtime, &mut *sender, u64::MAX, ()).await.unwrap().unwrap();
        assert!(burst.slow && sending.remaining() > 0, "nobody has read");
        // The kernel may have found some more room by then.
        if burst.sent == 0 {
            break;
        }
    }
    assert!(at_once(pin!(sending.step(sender.socket().unwrap(), 1))).is_none(), "it waits as a task");
    let mut received = vec![0; SIZE];
    tokio::join!(finish(&mut sending, &*sender), async { reader.read_exact(&mut received).await.unwrap() });
    assert!(received == *CONTENT);
}

#[tokio::test]
async fn a_reader_below_the_pace_has_the_thread_for_one_chunk() {
    let (mut sender, mut reader) = pair().await;
    let runtime = steps(FileSend::QUICK + Duration::from_nanos(1));
    let mut sending = FileSend::new(file(&CONTENT), 0, SIZE as u64).unwrap();
    let mut received = vec![0; SIZE];
    let sent = async {
        let burst = sending.burst(&runtime, &mut *sender, u64::MAX, ()).await.unwrap().unwrap();
        assert!(burst.slow && burst.sent <= FileSend::CHUNK, "{burst:?}");
        finish(&mut sending, &*sender).await;
    };
    tokio::join!(sent, async { reader.read_exact(&mut received).await.unwrap() });
    assert!(received == *CONTENT);
}

#[tokio::test]
async fn whatever_fails_in_a_thread_closes_the_stream() {
    let runtime = steps(Duration::ZERO);
    let (mut sender, mut reader) = pair().await;
    let mut sending = FileSend::new(file(b"12345"), 2, 4).unwrap();
    let burst = sending.burst(&runtime, &mut *sender, u64::MAX, ()).await.unwrap();
    assert_eq!(burst, Some(Burst { sent: 3, slow: true }));
    let error = sending.burst(&runtime, &mut *sender, u64::MAX, ()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    assert!(sender.socket().is_none());
    let error = sender.read(&mut [0]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotConnected);
    let mut received = Vec::new();
    reader.read_to_end(&mut received).await.unwrap();
    assert_eq!(received, b"345");

    let (mut sender, reader) = pair().await;
    drop(reader);
    let mut sending = FileSend::new(file(&CONTENT), 0, SIZE as u64).unwrap();
    let error = loop {
        // The reset may come after the first bytes went.
        match sending.burst(&runtime, &mut *sender, u64::MAX, ()).await {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error:?}");
}

#[tokio::test]
async fn a_burst_that_nobody_waits_for_ends_and_closes_the_stream() {
    let (mut sender, mut reader) = pair().await;
    let (place, gone) = tokio::sync::oneshot::channel::<()>();
    let runtime = steps(Duration::ZERO);
    let mut sending = FileSend::new(file(&CONTENT), 0, SIZE as u64).unwrap();
    {
        let mut burst = pin!(sending.burst(&runtime, &mut *sender, u64::MAX, place));
        assert!(at_once(burst.as_mut()).is_none());
    }
    assert!(gone.await.is_err(), "its place is free when the thread is done");
    assert!(sender.socket().is_none());
    let mut received = Vec::new();
    reader.read_to_end(&mut received).await.unwrap();
    assert!(received.len() < SIZE && received == CONTENT[..received.len()]);
}

#[tokio::test]
async fn a_stream_that_keeps_its_socket_has_no_bursts() {
    let (sender, _reader) = pair().await;
    let mut stream = { sender }.lend().unwrap();
    let mut sending = FileSend::new(file(&CONTENT), 0, 1000).unwrap();
    let burst = sending.burst(&steps(Duration::ZERO), &mut stream, u64::MAX, ()).await.unwrap();
    assert_eq!((burst, sending.remaining()), (None, 1000));
}
