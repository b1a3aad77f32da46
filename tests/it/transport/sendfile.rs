//! Files into sockets.

use super::at_once;
use proptest::prelude::*;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::pin::pin;
use std::sync::{Arc, LazyLock};
use tokio::io::AsyncReadExt;
use vortex_p2p::transport::{ByteStream, FileSend, Network, TokioNetwork, send_file};

/// Several of the chunks in which a file is sent, and of the parts in which it is read ahead.
pub(super) const SIZE: usize = 18 << 20;

/// Bytes that differ from their neighbours and repeat nowhere near.
pub(super) static CONTENT: LazyLock<Vec<u8>> = LazyLock::new(|| {
    (0..SIZE as u32 / 4).flat_map(|word| word.wrapping_mul(0x9e37_79b1).to_le_bytes()).collect()
});

pub(super) fn file(content: &[u8]) -> Arc<File> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(content).unwrap();
    Arc::new(file)
}

/// Bytes that the kernel is asked to keep between the two ends, in each of two buffers; it doubles what it is told.
const BUFFER: usize = 64 << 10;

/// Two ends of a connection.
pub(super) async fn pair() -> (Box<dyn ByteStream>, Box<dyn ByteStream>) {
    let network = TokioNetwork::default();
    let mut listener = network.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (connected, accepted) = tokio::join!(network.connect(address), listener.accept());
    let (sender, reader) = (connected.unwrap(), accepted.unwrap().0);
    for end in [&sender, &reader] {
        let socket = socket2::SockRef::from(end.socket().unwrap());
        socket.set_send_buffer_size(BUFFER).unwrap();
        socket.set_recv_buffer_size(BUFFER).unwrap();
    }
    (sender, reader)
}

/// Sends a range to a reader that begins only when the socket is full, and reads a bit at a time.
async fn through_a_slow_reader(file: Arc<File>, offset: u64, length: u64) -> Vec<u8> {
    let (sender, mut reader) = pair().await;
    let mut received = Vec::new();
    let mut sending = pin!(async move {
        assert_eq!(send_file(sender.socket().unwrap(), file, offset, length).await.unwrap(), length);
    });
    let full = at_once(sending.as_mut()).is_none();
    // What the kernel may have taken before its buffers had their size comes on top.
    assert!(full || length < 4 << 20, "{length} bytes went out before anybody read");
    let mut buffer = vec![0; 100_003];
    let reading = async {
        loop {
            match reader.read(&mut buffer).await.unwrap() {
                0 => break,
                count => received.extend_from_slice(&buffer[..count]),
            }
        }
    };
    if full {
        tokio::join!(sending, reading);
    } else {
        reading.await;
    }
    received
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn a_range_arrives_as_it_is_in_the_file(offset in 0..SIZE, length in 0..=SIZE, end in any::<bool>()) {
        let length = if end { SIZE - offset } else { length.min(SIZE - offset) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let received = runtime.block_on(through_a_slow_reader(file(&CONTENT), offset as u64, length as u64));
        prop_assert!(received == CONTENT[offset..offset + length]);
    }
}

#[tokio::test]
async fn a_whole_file_arrives_through_a_full_socket() {
    assert!(through_a_slow_reader(file(&CONTENT), 0, SIZE as u64).await == *CONTENT);
}

#[tokio::test]
async fn a_file_that_ends_early_is_an_error_after_what_it_has() {
    let (sender, mut reader) = pair().await;
    let error = send_file(sender.socket().unwrap(), file(b"12345"), 2, 4).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    drop(sender);
    let mut received = Vec::new();
    reader.read_to_end(&mut received).await.unwrap();
    assert_eq!(received, b"345");
}

#[tokio::test]
async fn progress_is_seen_step_by_step() {
    let (sender, mut reader) = pair().await;
    let mut sending = FileSend::new(file(&CONTENT), 0, 3 << 20).unwrap();
    let mut sum = 0;
    let reading = async {
        let mut buffer = vec![0; 3 << 20];
        reader.read_exact(&mut buffer).await.unwrap();
    };
    let stepping = async {
        loop {
            let sent = sending.step(sender.socket().unwrap(), u64::MAX).await.unwrap();
            if sent == 0 {
                break;
            }
            assert!(sent <= 1 << 20, "one step sent {sent} bytes");
            sum += sent;
            assert_eq!(sending.remaining(), (3 << 20) - sum);
        }
    };
    tokio::join!(reading, stepping);
    assert_eq!(sum, 3 << 20);
}

#[test]
fn a_range_beyond_all_files_is_refused() {
    let error = FileSend::new(file(b""), u64::MAX, 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[tokio::test]
async fn a_reader_that_leaves_is_an_error() {
    let (sender, reader) = pair().await;
    let mut sending = pin!(send_file(sender.socket().unwrap(), file(&CONTENT), 0, SIZE as u64));
    assert!(at_once(sending.as_mut()).is_none());
    drop(reader);
    let error = sending.await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error:?}");
}
