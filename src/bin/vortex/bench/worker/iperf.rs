//! iperf3: what the kernel's TCP carries, from memory to nowhere.

use super::super::job::Job;
use super::work::Work;
use super::{LOOPBACK, Result};
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};

/// Seconds after which a server ends that no client came to: nobody else ends it.
const IDLE: &str = "60";

/// Starts iperf3, which takes one client and ends.
pub(super) fn serve() -> Result<SocketAddr> {
    // It tells nobody which port the system gave it, and so has one that was free just now.
    let address = TcpListener::bind(LOOPBACK)?.local_addr()?;
    let mut server = Command::new("iperf3")
        .args(["--server", "--one-off", "--idle-timeout", IDLE, "--forceflush", "--bind"])
        .args([address.ip().to_string(), "--port".into(), address.port().to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut told = BufReader::new(server.stdout.take().ok_or("iperf3 has no stdout")?).lines();
    loop {
        let line = told.next().ok_or("iperf3 ended before it listened")??;
        if line.contains("listening") {
            break;
        }
    }
    // What else it says is read and forgotten, or it would wait for room. It is not waited for: so its processor time is there
    // to be read when it has ended, too.
    std::thread::spawn(move || told.for_each(drop));
    Ok(address)
}

/// One iperf3 for all of the content.
pub(super) fn fetch(job: &Job, server: SocketAddr, work: &Work) -> Result<()> {
    work.begin()?;
    let output = Command::new("iperf3")
        .args(["--json", "--reverse", "--bytes", &job.length.to_string(), "--client"])
        .args([server.ip().to_string(), "--port".into(), server.port().to_string()])
        .stderr(Stdio::inherit())
        .output()?;
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    match report.pointer("/end/sum_received/bytes").and_then(serde_json::Value::as_u64) {
        // It moves whole blocks, so the last one may have more than was asked for.
        Some(bytes) => work.whole(bytes.min(job.length), None),
        None => return Err(format!("iperf3: {}", report.get("error").unwrap_or(&report)).into()),
    }
    Ok(())
}
