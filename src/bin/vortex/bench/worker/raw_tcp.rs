//! The kernel's sockets and threads that block, without Vortex.
//!
//! A client sends 12 bytes (offset, length) and gets the content, any number of times on one connection; or it speaks
//! HTTP/1.1, for curl, and gets all of it once.

use super::super::job::Job;
use super::work::Work;
use super::{LOOPBACK, Result};
use bytes::Buf as _;
use rustix::fs::sendfile;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// Bytes that are received at a time, as Vortex does.
const READ_LEN: usize = 256 << 10;

pub(super) fn serve(job: &Job) -> Result<SocketAddr> {
    let (file, length) = (Arc::new(File::open(job.content())?), job.length);
    let listener = TcpListener::bind(LOOPBACK)?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let file = file.clone();
            // A connection that fails is the client's to tell of.
            std::thread::spawn(move || answer(stream, &file, length));
        }
    });
    Ok(address)
}

fn answer(mut stream: TcpStream, file: &File, all: u64) -> io::Result<()> {
    stream.set_nodelay(true)?;
    loop {
        let mut request = [0; 12];
        stream.read_exact(&mut request)?;
        if request.starts_with(b"GET ") {
            return answer_http(stream, file, all);
        }
        let mut request = request.as_slice();
        send(&stream, file, request.get_u64(), request.get_u32().into())?;
    }
}

fn answer_http(mut stream: TcpStream, file: &File, all: u64) -> io::Result<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.extend_from_slice(&byte);
    }
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {all}\r\nConnection: close\r\n\r\n")?;
    send(&stream, file, 0, all)
}

fn send(stream: &TcpStream, file: &File, mut offset: u64, length: u64) -> io::Result<()> {
    let end = offset + length;
    while offset < end {
        let count = usize::try_from(end - offset).unwrap_or(usize::MAX);
        if sendfile(stream, file, Some(&mut offset), count)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

pub(super) fn fetch(job: &Job, server: SocketAddr, work: &Work) -> Result<()> {
    let connect = || TcpStream::connect(server);
    let _idle: Vec<_> = (0..job.idle).map(|_| connect()).collect::<io::Result<_>>()?;
    work.begin()?;
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..job.concurrency.max(job.connections))
            .map(|_| scope.spawn(|| fetch_over(connect()?, work)))
            .collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| "a thread panicked")?)
    })
}

fn fetch_over(mut stream: TcpStream, work: &Work) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; READ_LEN];
    while let Some(mut fetch) = work.next() {
        let length = fetch.span.length.get();
        stream.write_all(&[&fetch.span.offset.to_be_bytes()[..], &length.to_be_bytes()].concat())?;
        let (mut left, mut sum) = (length as usize, crc32fast::Hasher::new());
        while left > 0 {
            let room = buffer.get_mut(..left.min(READ_LEN)).unwrap_or_default();
            let count = stream.read(room)?;
            let bytes = room.get(..count).filter(|bytes| !bytes.is_empty()).ok_or("the connection ended")?;
            sum.update(bytes);
            fetch.take(bytes)?;
            left -= count;
        }
        std::hint::black_box(sum.finalize());
        fetch.end();
    }
    Ok(())
}

/// One curl for all of the content. Its processor time counts with this process's, to hundredths of a second.
pub(super) fn curl(job: &Job, server: SocketAddr, work: &Work) -> Result<()> {
    let into = match job.target {
        super::super::job::Target::Discard => "/dev/null".into(),
        super::super::job::Target::File => job.received(),
    };
    work.begin()?;
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--fail", "--write-out", "%{size_download} %{time_starttransfer}"])
        .arg("--output")
        .arg(into)
        .arg(format!("http://{server}/"))
        .stderr(Stdio::inherit())
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    let (bytes, first) = text.split_once(' ').ok_or("curl did not say what it did")?;
    work.whole(bytes.parse()?, Some(Duration::from_secs_f64(first.parse()?)));
    Ok(())
}
