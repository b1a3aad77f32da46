//! Runs a process and kills it at a counted system call.

use nix::libc::{self, c_long};
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

/// Where a process dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// Before the call has done anything.
    Before(usize),
    /// After the call, which was made to write half of its bytes. A call that writes none is let through whole.
    Within(usize),
}

impl Cut {
    fn at(self) -> usize {
        let (Self::Before(at) | Self::Within(at)) = self;
        at
    }
}

/// How a process ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// The call at which it was killed; `None` where it came to its end.
    pub(super) killed_at: Option<&'static str>,
    /// Its exit code, where it came to its end.
    pub(super) code: Option<i32>,
    /// What it wrote to stdout.
    pub(super) stdout: String,
}

/// A thread of the process, as the kernel last told of it.
#[derive(Debug, Default)]
struct Thread {
    /// It is within a system call.
    within: bool,
    /// It dies when it leaves the call.
    dies: bool,
}

/// Runs `program` with `arguments` and kills it at `cut`.
#[allow(clippy::zombie_processes, reason = "the tracer waits for it")]
pub(super) fn run(program: &str, arguments: &[&str], cut: Option<Cut>) -> Ended {
    // The shell waits until it is traced, and then becomes the program.
    let mut child = Command::new("/bin/sh")
        .args([OsStr::new("-c"), OsStr::new("kill -STOP $$; exec \"$0\" \"$@\""), OsStr::new(program)])
        .args(arguments)
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let main = Pid::from_raw(i32::try_from(child.id()).unwrap());
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        while stdout.read_line(&mut text).unwrap() > 0 {
            // A server is asked to stop as soon as it runs.
            if text.starts_with("READY ") && text.ends_with('\n') {
                let _ = kill(main, Signal::SIGTERM);
            }
        }
        text
    });
    let mut ended = trace(main, cut);
    ended.stdout = reader.join().unwrap();
    ended
}

fn trace(main: Pid, cut: Option<Cut>) -> Ended {
    let stopped = waitpid(main, Some(WaitPidFlag::WUNTRACED)).unwrap();
    assert!(matches!(stopped, WaitStatus::Stopped(_, Signal::SIGSTOP)), "{stopped:?}");
    ptrace::attach(main).unwrap();
    waitpid(main, Some(WaitPidFlag::__WALL)).unwrap();
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_EXITKILL;
    ptrace::setoptions(main, options).unwrap();
    kill(main, Signal::SIGCONT).unwrap();
    ptrace::syscall(main, None).unwrap();

    let group = Pid::from_raw(-main.as_raw());
    let mut threads = BTreeMap::<Pid, Thread>::new();
    let (mut begun, mut calls, mut killed_at) = (false, 0, None);
    loop {
        let status = waitpid(group, Some(WaitPidFlag::__WALL)).unwrap();
        let mut pass = None;
        match status {
            WaitStatus::Exited(pid, code) if pid == main => {
                // A main thread is reported last.
                return Ended { killed_at, code: Some(code), stdout: String::new() };
            }
            WaitStatus::Signaled(pid, signal, _) if pid == main => {
                assert!(killed_at.is_some(), "the process died of {signal}");
                return Ended { killed_at, code: None, stdout: String::new() };
            }
            WaitStatus::PtraceSyscall(pid) => {
                let thread = threads.entry(pid).or_default();
                thread.within = !thread.within;
                if thread.dies {
                    let _ = kill(main, Signal::SIGKILL);
                } else if thread.within
                    && begun
                    && killed_at.is_none()
                    && let Some(call) = Call::entered(pid)
                {
                    calls += 1;
                    if let Some(cut) = cut.filter(|cut| cut.at() == calls) {
                        killed_at = Some(call.name);
                        match cut {
                            Cut::Before(_) => kill(main, Signal::SIGKILL).unwrap(),
                            Cut::Within(_) => {
                                call.halve(pid);
                                thread.dies = true;
                            }
                        }
                    }
                }
            }
            WaitStatus::PtraceEvent(pid, _, libc::PTRACE_EVENT_EXEC) => {
                begun = true;
                threads.insert(pid, Thread { within: true, dies: false });
            }
            // The first stop of a new thread, and what is left of how the shell waited.
            WaitStatus::Stopped(_, Signal::SIGSTOP | Signal::SIGCONT | Signal::SIGTRAP) => {}
            WaitStatus::Stopped(_, signal) => pass = Some(signal),
            _ => {}
        }
        // A thread that was killed meanwhile can't be let go on.
        if let Some(pid) = status.pid()
            && !matches!(status, WaitStatus::Exited(..) | WaitStatus::Signaled(..))
        {
            let _ = ptrace::syscall(pid, pass);
        }
    }
}

/// A system call that changes the disk or tells somebody something.
struct Call {
    name: &'static str,
    /// The register that says how many bytes are written is the third argument.
    writes: bool,
}

/// What can change a file, a directory, or what somebody at the other end of a pipe knows.
const CALLS: &[(c_long, &str)] = &[
    (libc::SYS_copy_file_range, "copy_file_range"),
    (libc::SYS_creat, "creat"),
    (libc::SYS_fallocate, "fallocate"),
    (libc::SYS_fchmod, "fchmod"),
    (libc::SYS_fdatasync, "fdatasync"),
    (libc::SYS_fsync, "fsync"),
    (libc::SYS_ftruncate, "ftruncate"),
    (libc::SYS_link, "link"),
    (libc::SYS_linkat, "linkat"),
    (libc::SYS_mkdir, "mkdir"),
    (libc::SYS_mkdirat, "mkdirat"),
    (libc::SYS_open, "open"),
    (libc::SYS_openat, "openat"),
    (libc::SYS_pwrite64, "pwrite64"),
    (libc::SYS_pwritev, "pwritev"),
    (libc::SYS_pwritev2, "pwritev2"),
    (libc::SYS_rename, "rename"),
    (libc::SYS_renameat, "renameat"),
    (libc::SYS_renameat2, "renameat2"),
    (libc::SYS_rmdir, "rmdir"),
    (libc::SYS_sync_file_range, "sync_file_range"),
    (libc::SYS_truncate, "truncate"),
    (libc::SYS_unlink, "unlink"),
    (libc::SYS_unlinkat, "unlinkat"),
    (libc::SYS_write, "write"),
    (libc::SYS_writev, "writev"),
];

impl Call {
    /// The call that a thread has just entered, if it counts.
    fn entered(pid: Pid) -> Option<Self> {
        let registers = ptrace::getregs(pid).ok()?;
        let number = c_long::try_from(registers.orig_rax).ok()?;
        let (_, name) = CALLS.iter().find(|(counted, _)| *counted == number)?;
        let writes = matches!(number, libc::SYS_write | libc::SYS_pwrite64);
        let flags = match number {
            libc::SYS_open => registers.rsi,
            libc::SYS_openat => registers.rdx,
            _ => u64::MAX,
        };
        let changing = (libc::O_CREAT | libc::O_TRUNC) as u64;
        if flags & changing == 0 {
            return None;
        }
        if writes {
            // How threads wake each other is nobody else's business.
            let target = std::fs::read_link(format!("/proc/{pid}/fd/{}", registers.rdi)).ok()?;
            let target = target.to_str()?;
            if !target.starts_with('/') && !target.starts_with("pipe:") {
                return None;
            }
        }
        Some(Self { name, writes })
    }

    /// Makes it write half of its bytes.
    fn halve(&self, pid: Pid) {
        if self.writes {
            let mut registers = ptrace::getregs(pid).unwrap();
            registers.rdx /= 2;
            ptrace::setregs(pid, registers).unwrap();
        }
    }
}

/// The points that were tried, by system call.
#[derive(Debug, Default)]
pub(super) struct Points(BTreeMap<&'static str, usize>);

impl Points {
    pub(super) fn count(&mut self, call: &'static str) {
        *self.0.entry(call).or_default() += 1;
    }

    pub(super) fn total(&self) -> usize {
        self.0.values().sum()
    }

    pub(super) fn calls(&self) -> BTreeSet<&'static str> {
        self.0.keys().copied().collect()
    }
}

impl std::fmt::Display for Points {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} points:", self.total())?;
        self.0.iter().try_for_each(|(call, count)| write!(f, " {count} {call}"))
    }
}
