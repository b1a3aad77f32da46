//! What this process has used.

use super::super::job::Usage;
use std::fs;
use std::io;

/// Processor time by the kernel's clock of this process, memory by `/proc`.
pub(super) fn usage() -> io::Result<Usage> {
    let status = fs::read_to_string("/proc/self/status")?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|value| value.split_whitespace().next()?.parse().ok()).unwrap_or_default()
    };
    Ok(Usage { cpu: cpu()?, resident: field("VmRSS:"), peak: field("VmHWM:") })
}

/// That of children counts, too: in hundredths of a second, as `/proc` has it.
fn cpu() -> io::Result<f64> {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    // cutime and cstime: of those that were waited for.
    let mut ticks = sum("/proc/self/stat", 16)?;
    for thread in fs::read_dir("/proc/self/task")? {
        // A kernel may be built without these, and a thread may have ended.
        let children = fs::read_to_string(thread?.path().join("children")).unwrap_or_default();
        for child in children.split_whitespace() {
            ticks += sum(&format!("/proc/{child}/stat"), 14).unwrap_or_default();
        }
    }
    Ok(time.tv_sec as f64 + time.tv_nsec as f64 / 1e9 + ticks as f64 / 100.0)
}

/// The sum of the field `first` and the next one, as proc(5) counts them, from 3 on.
fn sum(path: &str, first: usize) -> io::Result<u64> {
    let stat = fs::read_to_string(path)?;
    // After the name, which is in parentheses and may hold anything.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
    Ok(fields.skip(first - 3).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum())
}
