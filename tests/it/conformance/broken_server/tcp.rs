//! The server over TCP.

use super::react::{Broken, Input, React};
use super::{DEADLINES, F};
use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use vortex_p2p::transport::ByteStream;

impl Broken {
    pub(super) async fn tcp(self, mut stream: Box<dyn ByteStream>) {
        let mut input = Input::default();
        loop {
            let reaction = self.react(&mut input);
            let asked = matches!(reaction, React::Content(_) | React::NotFound(_));
            let (bytes, ends) = match reaction {
                React::Wait => {
                    let (time, idle) = match input.is_idle() {
                        true if self.fault == F::NoIdleTimeout => (DEADLINES * 100, true),
                        true if self.fault == F::EarlyIdleTimeout => (DEADLINES / 4, true),
                        true => (DEADLINES, true),
                        false => (self.deadline(), false),
                    };
                    input.bytes.reserve(8 << 10);
                    match tokio::time::timeout(time, stream.read_buf(&mut input.bytes)).await {
                        Ok(Ok(0)) if input.is_idle() || self.fault == F::TruncatedUnanswered => return,
                        Ok(Ok(0)) => (self.error(0, 1), true),
                        Ok(Ok(_)) => continue,
                        Ok(Err(_)) => return,
                        Err(_) if idle && self.fault == F::ErrorWhenIdle => (self.error(0, 1), true),
                        Err(_) if idle => return,
                        Err(_) if input.skip > 0 && self.fault != F::SecondErrorForSkipped => return,
                        Err(_) if self.fault == F::HangsOnHalf => {
                            tokio::time::sleep(DEADLINES * 100).await;
                            return;
                        }
                        Err(_) => (self.error(0, 1), true),
                    }
                }
                React::Content(bytes) => (bytes, self.fault == F::ClosesAfterContent),
                React::NotFound(bytes) => (bytes, self.fault == F::ClosesAfterNotFound),
                React::Refuse(bytes) => (bytes, self.fault == F::ClosesAfterRefusal),
                React::Broken(bytes) => (bytes, self.fault != F::StaysOpenAfterTooLong),
                React::Nothing => continue,
                React::Close(_) if self.fault == F::CloseIgnored || self.fault == F::AnswersAfterClose => {
                    if self.fault == F::AnswersAfterClose && input.is_idle() {
                        return;
                    }
                    continue;
                }
                React::Close(bytes) => (bytes, true),
            };
            if self.fault == F::DropsPipelined && asked {
                while input.bytes.len() >= 74 && input.bytes[1] <= 0x06 {
                    let _ = input.bytes.split_to(74);
                }
            }
            if !self.write(&mut stream, &bytes, &mut input).await {
                return;
            }
            if ends {
                if self.fault == F::NoLastWords {
                    return;
                }
                let _ = stream.shutdown().await;
                let mut sink = BytesMut::with_capacity(1 << 20);
                let discard = async {
                    while matches!(stream.read_buf(&mut sink).await, Ok(count) if count > 0) {
                        sink.clear();
                    }
                };
                let _ = tokio::time::timeout(DEADLINES, discard).await;
                return;
            }
        }
    }

    /// Writes as far as the client takes something now and then; whether it took everything.
    async fn write(&self, stream: &mut Box<dyn ByteStream>, mut bytes: &[u8], input: &mut Input) -> bool {
        let time = if self.fault == F::NoProgressDeadline { DEADLINES * 100 } else { DEADLINES };
        let (mut open, mut late) = (true, tokio::time::Instant::now() + DEADLINES);
        while !bytes.is_empty() {
            if self.fault == F::ReadsOn {
                // Takes all requests into memory, whether or not the answers are taken.
                let (mut read, mut write) = tokio::io::split(&mut *stream);
                let written = tokio::select! {
                    written = write.write(bytes) => written,
                    read = read.read_buf(&mut input.bytes), if open => {
                        open = matches!(read, Ok(count) if count > 0);
                        Ok(0)
                    }
                    () = tokio::time::sleep_until(late) => return false,
                };
                match written {
                    Ok(0) => {}
                    Ok(count) => {
                        bytes = &bytes[count..];
                        late = tokio::time::Instant::now() + DEADLINES;
                    }
                    Err(_) => return false,
                }
                continue;
            }
            match tokio::time::timeout(time, stream.write(bytes)).await {
                Ok(Ok(count)) => bytes = &bytes[count..],
                _ => return false,
            }
        }
        true
    }
}
