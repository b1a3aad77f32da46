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

/// That of children that have ended counts, too: in hundredths of a second, as `/proc` has it.
fn cpu() -> io::Result<f64> {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let stat = fs::read_to_string("/proc/self/stat")?;
    // After the name, which is in parentheses and may hold anything: cutime and cstime are the fields 16 and 17.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
    let children: u64 = fields.skip(13).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Ok(time.tv_sec as f64 + time.tv_nsec as f64 / 1e9 + children as f64 / 100.0)
}
